"""How long ranks take to add up: `python -m benchmarks.speed.training.exchange --processes 2`; JSON out.

The same sums in the memory that ranks share and over gloo's sockets; medians in microseconds, of rank 0.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from training.processes.join import joined
from training.processes.launch import MEMORY, launch
from training.trainer.group import Group

SIZES = (1, 1_000, 100_000, 1_000_000)
"""Numbers, float32."""


def main() -> None:
    """Start the ranks twice and print what they found."""
    parser = argparse.ArgumentParser(description="Time sums over ranks")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=200, help="of each sum; medians are given")
    parser.add_argument("--report", type=Path, help="of a rank: where rank 0 writes what it found")
    parser.add_argument("--gloo", action="store_true", help="of a rank: leave the shared memory alone")
    args = parser.parse_args()
    if args.report is not None:
        _run_rank(args.report, args.repeats, gloo=args.gloo)
        return
    found = {}
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        report = Path(folder) / "report.json"
        for name, words in (("shared_memory", []), ("gloo", ["--gloo"])):
            own = ["--repeats", str(args.repeats), "--report", str(report), *words]
            launch(["-m", "benchmarks.speed.training.exchange", *own], args.processes)
            found[name] = json.loads(report.read_text())
    print(json.dumps({"processes": args.processes, "microseconds": found}))


def _run_rank(report: Path, repeats: int, *, gloo: bool) -> None:
    if gloo:
        os.environ.pop(MEMORY, None)
    with joined() as group:
        found = {str(size): round(1e6 * _sum_s(group, size, repeats), 1) for size in SIZES}
        if group.rank == 0:
            report.write_text(json.dumps(found))


def _sum_s(group: Group, size: int, repeats: int) -> float:
    x, times = torch.ones(size), []
    for _ in range(repeats):
        began = time.perf_counter()
        group.sum_([x])
        times.append(time.perf_counter() - began)
        x.fill_(1.0)
    return statistics.median(times)


if __name__ == "__main__":
    main()
