"""Replicated against sharded embedding tables, in two processes of one thread each, on the click log.

`python -m benchmarks.speed.training.table_forms` trains one epoch of the bench's MMoE with each form, in
fresh processes that take turns, and prints JSON. All ids of this log are in one table: cut by rows, half of
it lies on each rank; whole, all of it lies on one.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commit import CHECKOUT
from benchmarks.speed.fresh_run import Patience, keep_to_cores
from benchmarks.speed.training.click_log import write_click_log
from benchmarks.speed.training.systems import System
from benchmarks.speed.training.throughput import Figures, measure_throughput
from training.sharding.plan import KINDS

REPLICATED = "replicated"
FORMS = (REPLICATED, *KINDS)


def main() -> None:
    """Read the arguments and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--batch", type=int, action="append", help="default: 2048 and 8192")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--form", choices=FORMS, action="append", help="default: all")
    parser.add_argument(
        "--patience", type=float, default=math.inf, help="seconds for repeating disturbed runs"
    )
    args = parser.parse_args()
    patience = Patience(args.patience)
    found = measure_forms(args.rows, args.batch or [2048, 8192], args.repeats, args.form or FORMS, patience)
    print(json.dumps(found, indent=1))


def measure_forms(
    rows: int, batches: Sequence[int], repeats: int, forms: Sequence[str], patience: Patience
) -> Figures:
    """Time every form at every batch size; form -> batch size -> figures."""
    systems = [form_of(form) for form in forms]
    cores = keep_to_cores()
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        write_click_log(Path(folder), rows, 1, seed=0)
        every = dict.fromkeys(batches, systems)
        return measure_throughput(every, Path(folder), rows, repeats, cores, patience)


def form_of(form: str) -> System:
    """Describe two processes whose tables have this form."""
    how = ("--processes", "2", "--tables", form)
    return System(form, (sys.executable, "-m", "benchmarks.speed.training.own_epoch", *how), (CHECKOUT,))


if __name__ == "__main__":
    main()
