"""One rank of a fit: `python -m training.processes.rank FOLDER`, started by torchrun's launcher.

Every rank reads the same folder and takes its slices of the batches; rank 0 writes what was trained.
"""

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from training.processes.job import STEPS, FitJob
from training.processes.join import joined
from training.saved_step import describe
from training.train import build_model
from training.trainer.group import Group
from training.trainer.guard import Guard
from training.trainer.watcher import Watcher
from training.trainer.weights import canonical, load_canonical


def main(folder: Path) -> None:
    """Make one rank's part of a fit."""
    with joined() as group:
        _fit(FitJob(folder), group)


def _fit(job: FitJob, group: Group) -> None:
    inputs = job.inputs()
    ranker, tables = build_model(inputs.config, inputs.state, inputs.tasks)
    load_canonical(ranker, tables, job.start())
    # Each rank has dropout masks of its own.
    torch.manual_seed(inputs.config.training.seed + group.rank)
    saver = job.saver(print)
    start = saver.read() if saver else None
    watchers: list[Watcher] = []
    if (diverged := job.diverged()) is not None:
        model = partial(
            describe, config=inputs.config, state=inputs.state, tasks=inputs.tasks, settings=inputs.settings
        )
        watchers.append(Guard(diverged, model, start.log.losses if start else (), group))
    if group.rank == 0:
        watchers += [_Teller(job.folder / STEPS), *([saver] if saver else [])]
    log = inputs.fit(ranker, tables, watchers, start, group)
    weights = canonical(ranker, tables)
    if group.rank == 0:
        job.finish(weights, log)


class _Teller(Watcher):
    """Writes each step's losses and rows for the parent, a line each."""

    def __init__(self, file: Path) -> None:
        self.stream = file.open("w")
        self.said: dict[str, Any] = {}

    def on_losses(self, step: int, losses: Mapping[str, float]) -> None:
        self.said = {"step": step, "losses": dict(losses)}

    def on_rows(self, rows: int, of_step: int) -> None:
        self.stream.write(json.dumps({**self.said, "rows": rows, "of_step": of_step}) + "\n")
        self.stream.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
