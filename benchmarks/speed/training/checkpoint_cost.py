"""What a checkpoint costs: `python -m benchmarks.speed.training.checkpoint_cost --rows 1000000 --dim 32`.

The click log's model, its optimiser's moments, and one table of the size asked for, saved as a fit does it:
copied, written, hashed, and on the disk. Prints JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.speed.training.click_log_model import SPECS, ClickLogModel
from recsys.config import default_config
from recsys.model.embeddings import LocalTables, TableSpec
from training.balancing.weights import Fixed
from training.trainer.checkpoint import STATE, write_checkpoint
from training.trainer.optimizer import DenseOptimizer
from training.trainer.settings import FitSettings
from training.trainer.step import Stepper
from training.trainer.train_log import TrainLog

REPEATS = 5


def main() -> None:
    """Save a few times and print medians."""
    parser = argparse.ArgumentParser(description="Time checkpoints")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10_000, help="whose losses are in the log")
    parser.add_argument("--folder", type=Path, help="where to save; default: the folder of temporary files")
    args = parser.parse_args()
    stepper, log = _stepper(args.rows, args.dim), TrainLog(steps=args.steps)
    log.losses = [{task.name: 0.5 for task in SPECS}] * args.steps
    copied, written = [], []
    with tempfile.TemporaryDirectory(prefix="recsys-bench-", dir=args.folder) as folder:
        target = Path(folder) / "step"
        for _ in range(REPEATS):
            began = time.perf_counter()
            checkpoint = stepper.checkpoint(log)
            copied.append(time.perf_counter() - began)
            write_checkpoint(checkpoint, target)
            written.append(time.perf_counter() - began - copied[-1])
        size = (target / STATE).stat().st_size
    print(
        json.dumps(
            {
                "rows": args.rows,
                "dim": args.dim,
                "mb": round(size / 2**20, 1),
                "copy_ms": round(1e3 * statistics.median(copied), 1),
                "write_ms": round(1e3 * statistics.median(written), 1),
            }
        )
    )


def _stepper(rows: int, dim: int) -> Stepper:
    training = default_config().training
    settings = FitSettings(
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        retrieval_task=None,
        temperature=1.0,
        total_steps=1,
    )
    model = ClickLogModel()
    tables = LocalTables((TableSpec(name="columns", size=rows, dim=dim),), training.sparse_learning_rate, 0)
    return Stepper(
        learner=model,
        tables=tables,
        balancer=Fixed({}),
        tasks=SPECS,
        settings=settings,
        dense=DenseOptimizer(model, settings),
    )


if __name__ == "__main__":
    main()
