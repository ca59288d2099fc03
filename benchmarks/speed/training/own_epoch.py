"""One epoch of ours on the click log, in a process of its own: JSON out, as the peers' script gives.

`python -m benchmarks.speed.training.own_epoch --arrays FOLDER …` is what the bench starts. It is `fit` as the
night calls it: the config's optimisers and rates, its tables, its balancing, the background reader; in one
process, or in several of one thread each that make every step together.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.machine import peak_rss
from benchmarks.speed.training.click_log import TASKS, read_array, read_chunk
from benchmarks.speed.training.click_log_model import (
    SPECS,
    TABLE,
    ClickLogBatches,
    ClickLogModel,
    click_log_batch,
)
from recsys.config import default_config
from recsys.device import CPU
from recsys.model.embeddings import LocalTables, Tables
from training.balancing import build_balancer
from training.processes.free_memory import total_memory
from training.processes.join import joined, torch_group
from training.processes.launch import launch
from training.sharding.plan import KINDS, Room
from training.threads import use_threads
from training.train import fit_settings
from training.trainer.fit import fit
from training.trainer.group import ALONE, Group

SCORED_AT_ONCE = 8192


def main() -> None:
    """Read the arguments, train, write the test rows' scores, and print one line of JSON."""
    parser = argparse.ArgumentParser(description="Train our model of the click log for one epoch")
    parser.add_argument("--arrays", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each, when more than one")
    parser.add_argument("--tables", choices=("replicated", *KINDS), default="replicated")
    parser.add_argument("--report", type=Path, help="of a rank: where rank 0 writes what it would print")
    parser.add_argument("--shuffle-labels", action="store_true")
    parser.add_argument("--scores", type=Path, help="where to write the test rows' scores; none: not scored")
    args = parser.parse_args()
    if args.scores is not None and args.tables != "replicated":
        parser.error("--scores: rank 0 scores alone, with --tables replicated")
    if args.report is not None:
        run_rank(args)
    elif args.processes > 1:
        print(json.dumps(run_ranks(args.processes)), flush=True)
    else:
        print(json.dumps(run(args)), flush=True)


def run_ranks(processes: int) -> dict[str, Any]:
    """Start this program once per rank, with the arguments it was given itself; give rank 0's report."""
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        report = Path(folder) / "report.json"
        launch(
            ["-m", "benchmarks.speed.training.own_epoch", *sys.argv[1:], "--report", str(report)], processes
        )
        found: dict[str, Any] = json.loads(report.read_text())
        return found


def run_rank(args: argparse.Namespace) -> None:
    """Make one rank's part; the clock runs from the moment at which all ranks are there."""
    args.threads = 1
    shared = args.tables != "replicated"
    if shared:
        import torchrec.distributed  # noqa: F401  # before the clock runs, as torch
    with joined() as group, torch_group(CPU) if shared else nullcontext():
        report = run(args, group)
        if group.rank == 0:
            args.report.write_text(json.dumps(report))


def run(args: argparse.Namespace, group: Group = ALONE) -> dict[str, Any]:
    """Time loading, building and one epoch; score afterwards. Memory is that of all ranks together."""
    use_threads(args.threads)
    torch.manual_seed(args.seed)
    config = default_config()
    before = _of_all(peak_rss() / 2**20, group)
    began = time.perf_counter()
    batches = ClickLogBatches(
        folder=args.arrays,
        part="train",
        rows=args.rows,
        batch_size=args.batch,
        seed=args.seed,
        shuffle_labels=args.shuffle_labels,
        rank=group.rank,
        ranks=group.size,
    )
    model, tables = ClickLogModel(), _tables(args, config.training.sparse_learning_rate, group)
    settings = replace(
        fit_settings(config, batches.steps, warm=False), retrieval_task=None, bf16=args.precision == "bf16"
    )
    balancer = build_balancer("fixed", dict.fromkeys(TASKS, 1.0), config.training.balancer)
    log = fit(model, tables, batches, balancer, SPECS, settings, group=group)
    seconds = time.perf_counter() - began
    peak = _of_all(peak_rss() / 2**20, group)
    if args.scores is not None and group.rank == 0 and isinstance(tables, LocalTables):
        np.save(args.scores, score(model, tables, args.arrays))
    return {
        "rows": log.rows,
        "seconds": seconds,
        "peak_rss_mb": peak,
        "imports_rss_mb": before,
        "threads": args.threads,
        "processes": group.size,
        "precision": "bf16" if settings.bf16 else "fp32",
        "versions": {name: version(name) for name in ("torch", "numpy")},
    }


def _tables(args: argparse.Namespace, learning_rate: float, group: Group) -> Tables:
    """Make this process's tables, or its share of them, from the same initial rows."""
    tables = LocalTables((TABLE,), learning_rate, args.seed)
    if args.tables == "replicated":
        return tables
    from training.sharding.tables import ShardedTables

    room = Room(
        ranks=group.size, local_ranks=group.size, device="cpu", host_bytes=total_memory() // group.size
    )
    batch = -(-args.batch // group.size)
    return ShardedTables((TABLE,), learning_rate, room, batch, {TABLE.name: args.tables}, tables.export())


def _of_all(own: float, group: Group) -> float:
    """Add up what every rank measured; all ranks wait for each other here."""
    return float(group.total(torch.tensor(own)))


@torch.no_grad()
def score(model: ClickLogModel, tables: LocalTables, arrays: Path) -> np.ndarray:
    """Give the test rows' logits, float32 [N, K]."""
    model.eval()
    found = []
    for begin in range(0, len(read_array(arrays, "test", "labels")), SCORED_AT_ONCE):
        rows = read_chunk(arrays, "test", begin, begin + SCORED_AT_ONCE)
        batch = click_log_batch(rows.ids_NC, rows.numbers_NF, rows.labels_NK)
        logits, _, _ = model(batch, tables.lookup(batch.rows))
        found.append(torch.stack([logits[task] for task in TASKS], dim=1).numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    main()
