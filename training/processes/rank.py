"""One rank of a fit: `python -m training.processes.rank FOLDER`, started by torchrun's launcher.

Every rank reads the same folder and takes its slices of the batches; rank 0 writes what was trained.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from recsys.errors import RecsysError
from training.processes.job import STEPS, FitJob
from training.processes.join import joined
from training.processes.launch import ENDED, LOGS
from training.threads import use_threads
from training.train import build_model
from training.trainer.group import Group
from training.trainer.watcher import Watcher
from training.trainer.weights import canonical, load_canonical


def main(folder: Path) -> None:
    """Make one rank's part of a fit."""
    _end_with_parent()
    use_threads(1)
    try:
        with joined() as group:
            _fit(FitJob(folder), group)
    except RecsysError as error:
        file = Path(os.environ[LOGS]) / f"rank{os.environ['RANK']}.{ENDED}"
        file.write_text(json.dumps({"error": type(error).__name__, "message": str(error)}))
        raise


def _fit(job: FitJob, group: Group) -> None:
    inputs = job.inputs()
    ranker, tables = build_model(inputs.config, inputs.state, inputs.tasks)
    load_canonical(ranker, tables, job.start())
    # Each rank has dropout masks of its own.
    torch.manual_seed(inputs.config.training.seed + group.rank)
    saver = job.saver(print)
    watchers: list[Watcher] = []
    if group.rank == 0:
        watchers = [_Teller(job.folder / STEPS), *([saver] if saver else [])]
    log = inputs.fit(ranker, tables, watchers, saver.read() if saver else None, group)
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


def _end_with_parent() -> None:
    """End this process when its parent is gone: nobody would wait for it or end it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
