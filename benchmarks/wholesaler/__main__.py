"""Write the log of a made-up wholesaler: `python -m benchmarks.wholesaler FOLDER [--share .1]`."""

import argparse
from pathlib import Path

from benchmarks.wholesaler.purchases import Wholesaler, write_log


def main() -> None:
    """Write purchases.csv and mapping.toml."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wholesaler", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of 4,400 customers and 400,000 rows")
    parser.add_argument("--again", type=float, default=Wholesaler.again, help="share of a basket taken again")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    full = Wholesaler()
    write_log(
        given.folder,
        Wholesaler(
            customers=round(full.customers * given.share),
            items=round(full.items * min(1.0, 3 * given.share)),
            rows=round(full.rows * given.share),
            again=given.again,
            seed=given.seed,
        ),
    )


if __name__ == "__main__":
    main()
