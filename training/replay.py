"""A step that diverged, saved by `training.trainer.guard`, and made again."""

import json
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from recsys.batch import Batch
from recsys.config import parse_config
from recsys.encoding import EncoderState
from recsys.errors import DataError
from recsys.user_key import name_alone
from recsys.vocabulary import Vocabulary
from training.balancing.gradients import task_gradients
from training.balancing.weights import Fixed
from training.build_model import build_model
from training.fit_inputs import balancer_of
from training.new_parts import NewParts, only_new
from training.processes.join import joined
from training.processes.launch import launch
from training.saved_step import MODEL
from training.trainer.batch_file import read_batch
from training.trainer.checkpoint import Checkpoint, read_checkpoint
from training.trainer.group import ALONE, Group
from training.trainer.guard import BATCH, RANDOM, STATE
from training.trainer.optimizer import DenseOptimizer
from training.trainer.settings import FitSettings
from training.trainer.step import Stepper


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a saved step does when it is made again."""

    step: int
    losses: dict[str, float]
    gradients: dict[str, float]
    """Loss -> the length of its gradient of what the losses share."""
    not_finite: tuple[str, ...]
    """Tensors of the batch and of the weights before the step that have values that are not finite."""


def replay(folder: Path) -> Replay:
    """Compute losses and gradients of a saved step, with the same weights and random numbers.

    A step of several processes is made by as many.

    Raises: DataError when the folder has no whole step; RankError.
    """
    ranks = len(list(folder.glob(BATCH.format(rank="*"))))
    if not (folder / MODEL).is_file() or not (folder / BATCH.format(rank=0)).is_file():
        raise DataError(f"{folder} has no saved step; a training that diverges names the folder of its own")
    if ranks == 1:
        return make_again(folder)
    with tempfile.TemporaryDirectory(prefix="recsys-replay-") as scratch:
        report = Path(scratch) / "report.json"
        launch(["-m", "training.replay", str(folder), str(report)], ranks)
        said = json.loads(report.read_text())
        return Replay(**said | {"not_finite": tuple(said["not_finite"])})


def make_again(folder: Path, group: Group = ALONE) -> Replay:
    """Make a rank's part of the step."""
    said = json.loads((folder / MODEL).read_text())
    config = parse_config(said["config"], str(folder / MODEL))
    tasks = [t for t in config.tasks if t.name in said["tasks"]]
    checkpoint = read_checkpoint(folder / STATE)
    tensors = load_file(folder / BATCH.format(rank=group.rank))
    random, batch = tensors.pop(RANDOM), read_batch(tensors)
    state = EncoderState.load(folder, partial(Vocabulary.load, find_key=name_alone))
    ranker, tables = build_model(config, state, tasks, loaded=True)
    settings = FitSettings(**said["settings"])
    heads, balancer = [*ranker.specs], balancer_of(config, tasks)
    learning: AbstractContextManager[None] = nullcontext()
    if parts := NewParts.of_json(said["alone"]):  # as `fit_new_parts` makes it
        learning, balancer = only_new(ranker, parts), Fixed({})
        heads, settings = parts.losses_of(heads, settings)
    with learning:
        stepper = Stepper(
            learner=ranker,
            tables=tables,
            balancer=balancer,
            tasks=heads,
            settings=settings,
            dense=DenseOptimizer(ranker, settings),
            group=group,
        )
        return _step(stepper, folder, checkpoint, batch, random)


def _step(stepper: Stepper, folder: Path, checkpoint: Checkpoint, batch: Batch, random: Tensor) -> Replay:
    group = stepper.group
    log = stepper.restore(checkpoint)
    torch.set_rng_state(random)
    stepper.learner.train()
    looked_up = stepper.look_up(batch)
    losses, _ = stepper.losses(batch, looked_up)
    found = task_gradients(losses, stepper.dense.parameters, list(looked_up.leaves.values()), group)
    lengths = found.gramian().diagonal().sqrt().tolist()
    bad = _not_finite("weights", checkpoint.tensors)
    for rank in reversed(range(group.size)):
        of = f"batch of rank {rank}" if group.size > 1 else "batch"
        bad = _not_finite(of, load_file(folder / BATCH.format(rank=rank))) + bad
    return Replay(
        step=log.steps,
        losses={name: float(loss.detach()) for name, loss in losses.items()},
        gradients=dict(zip(found.by_task, lengths, strict=True)),
        not_finite=tuple(bad),
    )


def _not_finite(where: str, tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{where}: {name}"
        for name, t in tensors.items()
        if t.is_floating_point() and not bool(torch.isfinite(t).all())
    ]


def _main(folder: Path, report: Path) -> None:
    """Make one rank's part; rank 0 writes the report."""
    with joined() as group:
        found = make_again(folder, group)
        if group.rank == 0:
            report.write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
