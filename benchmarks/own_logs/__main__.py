"""First nights with the defaults: `python -m benchmarks.own_logs purchases funnel ml-100k … --data DIR`.

Public sets are read from DIR (or RECSYS_DATA), which has a folder per set; the others are made. Prints
one JSON object a line.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

from benchmarks.own_logs.first_night import first_night
from benchmarks.own_logs.made import MADE, write_log
from benchmarks.own_logs.public import PUBLIC, write_public


def main() -> None:
    """Run a first night on each log that is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_logs", description=__doc__)
    parser.add_argument("logs", nargs="+", choices=[*MADE, *PUBLIC])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RECSYS_DATA", ".")))
    given = parser.parse_args()
    for name in given.logs:
        with tempfile.TemporaryDirectory(prefix="recsys-own-log-") as temporary:
            folder = Path(temporary)
            made = name in MADE
            files = folder / "src"
            mapping = write_log(name, files) if made else write_public(name, given.data, files)
            print(json.dumps(first_night(name, mapping, folder).row), flush=True)


if __name__ == "__main__":
    main()
