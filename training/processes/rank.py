"""One rank of a fit: `python -m training.processes.rank FOLDER`, started by torchrun's launcher.

Every rank reads the same folder and takes its slices of the batches; rank 0 writes what was trained.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys.device import resolve_device
from recsys.model.embeddings import LocalTables, Tables
from training.build_model import build_ranker, table_specs
from training.curves.recorder import Recorder
from training.errors import DivergedError
from training.fit_inputs import FitInputs
from training.processes.free_memory import total_memory
from training.processes.job import STEPS, FitJob
from training.processes.join import joined, torch_group
from training.processes.joint_saver import JointSaver
from training.saved_step import guard_of
from training.sharding.plan import Room
from training.table_placement import on_device, process_bytes
from training.trainer.checkpoint import Checkpoint
from training.trainer.group import Group
from training.trainer.saver import Saver
from training.trainer.watcher import Watcher
from training.trainer.weights import canonical, load_ranker, table_weights


def main(folder: Path) -> None:
    """Make one rank's part of a fit."""
    job = FitJob(folder)
    inputs = job.inputs()
    device = _own_device(inputs.config.training.device)
    with joined(device) as group:
        if job.sharded:
            with torch_group(device):
                _fit(job, inputs, group, device)
        else:
            _fit(job, inputs, group, device)


def _own_device(name: str) -> torch.device:
    """Give the processor, or the GPU of this rank's number on this host."""
    device = resolve_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        device = resolve_device(name)
    return device


def _fit(job: FitJob, inputs: FitInputs, group: Group, device: torch.device) -> None:
    weights = job.start()
    ranker = build_ranker(inputs.config, inputs.state, inputs.tasks)
    load_ranker(ranker, weights)
    tables = _tables(job, inputs, weights, group, device)
    # Each rank has dropout masks of its own.
    torch.manual_seed(inputs.config.training.seed + group.rank)
    saver = job.saver(print)
    start = saver.read() if saver else None
    watchers = _watchers(job, inputs, group, saver, start, copied=tables.copied)
    with on_device(ranker, tables, device), _recorded(job, inputs, group, watchers) as recorder:
        log = inputs.fit(ranker, tables, [*watchers, *recorder], start, group)
    trained = canonical(ranker, tables)
    if group.rank == 0:
        job.finish(trained, log)


@contextmanager
def _recorded(
    job: FitJob, inputs: FitInputs, group: Group, watchers: Sequence[Watcher]
) -> Iterator[list[Recorder]]:
    """Record curves, where they are wanted; what fails is said through the parent."""
    curves = job.curves()
    if curves is None:
        yield []
        return
    say = next((watcher.say for watcher in watchers if isinstance(watcher, _Teller)), print)
    try:
        with Recorder(curves, inputs.tasks, say, group) as recorder:
            yield [recorder]
    except DivergedError:
        # It is that of all ranks, and the first that ends takes the others with it: rank 0 has written.
        group.total(torch.zeros(1))
        raise


def _watchers(
    job: FitJob,
    inputs: FitInputs,
    group: Group,
    saver: Saver | None,
    start: Checkpoint | None,
    *,
    copied: bool,
) -> list[Watcher]:
    """Give what sees this rank's steps; of ranks that share the tables all save, as all gather."""
    found: list[Watcher] = []
    if (diverged := job.diverged()) is not None:
        found.append(guard_of(inputs, diverged, start, group))
    if group.rank == 0:
        teller = _Teller(job.folder / STEPS)
        found.append(teller)
        if saver is not None:
            saver.say = teller.say
    if saver is not None and not copied:
        found.append(JointSaver(saver, group))
    elif saver is not None and group.rank == 0:
        found.append(saver)
    return found


def _tables(
    job: FitJob, inputs: FitInputs, weights: Mapping[str, np.ndarray], group: Group, device: torch.device
) -> Tables:
    """Give this rank's copy of the tables, or its share of them."""
    training, specs = inputs.config.training, table_specs(inputs.config, inputs.state)
    if not job.sharded:
        copy = LocalTables(specs, training.sparse_learning_rate, None)
        copy.load(table_weights(weights))
        return copy
    from training.sharding.tables import ShardedTables

    local_ranks = int(os.environ["LOCAL_WORLD_SIZE"])
    room = Room(
        ranks=group.size,
        local_ranks=local_ranks,
        device=device.type,
        gpu_bytes=process_bytes(device, local_ranks) if device.type == "cuda" else 0,
        host_bytes=total_memory() // local_ranks,
    )
    return ShardedTables(
        specs,
        training.sparse_learning_rate,
        room,
        -(-training.batch_size // group.size),
        training.sharding,
        table_weights(weights),
        job.folder,
    )


class _Teller(Watcher):
    """Writes for the parent, a line each, the losses when they are read, and the rows of every step."""

    def __init__(self, file: Path) -> None:
        self.stream = file.open("w")

    def say(self, sentence: str) -> None:
        """Tell a person something, through the parent."""
        self._tell({"said": sentence})

    def on_losses(self, step: int, losses: Mapping[str, float]) -> None:
        self._tell({"step": step, "losses": dict(losses)})

    def on_rows(self, rows: int, of_step: int) -> None:
        self._tell({"rows": rows, "of_step": of_step})

    def _tell(self, said: Mapping[str, Any]) -> None:
        self.stream.write(json.dumps(said) + "\n")
        self.stream.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
