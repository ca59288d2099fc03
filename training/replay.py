"""A step that diverged, saved by `training.trainer.guard`, and made again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from recsys.config import parse_config
from recsys.encoding import EncoderState
from recsys.errors import DataError
from recsys.shapes import RETRIEVAL
from training.balancing import build_balancer
from training.balancing.gradients import task_gradients
from training.saved_step import MODEL
from training.train import build_model
from training.trainer.batch_file import batch_tensors, read_batch
from training.trainer.checkpoint import read_checkpoint
from training.trainer.guard import BATCH, STATE
from training.trainer.lookup import Lookup
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

    Raises: DataError when the folder has no whole step.
    """
    if not (folder / MODEL).is_file() or not (folder / BATCH).is_file():
        raise DataError(f"{folder} has no saved step; a training that diverges names the folder of its own")
    said = json.loads((folder / MODEL).read_text())
    config = parse_config(said["config"], str(folder / MODEL))
    tasks = [t for t in config.tasks if t.name in said["tasks"]]
    checkpoint = read_checkpoint(folder / STATE)
    batch = read_batch(load_file(folder / BATCH))
    ranker, tables = build_model(config, EncoderState.load(folder), tasks)
    settings = FitSettings(**said["settings"])
    weights = {t.name: t.weight for t in tasks} | {RETRIEVAL: config.retrieval.weight}
    stepper = Stepper(
        learner=ranker,
        tables=tables,
        balancer=build_balancer(config.training.balancing, weights, config.training.balancer),
        tasks=tasks,
        settings=settings,
        dense=DenseOptimizer(ranker, settings),
    )
    log = stepper.restore(checkpoint)
    ranker.train()
    rows = tables.lookup(batch.rows)
    losses, _ = stepper.losses(batch, Lookup(numbers=batch.rows, leaves=rows, rows=rows))
    found = task_gradients(losses, stepper.dense.parameters, list(rows.values()))
    lengths = found.gramian().diagonal().sqrt().tolist()
    return Replay(
        step=log.steps,
        losses={name: float(loss.detach()) for name, loss in losses.items()},
        gradients=dict(zip(found.by_task, lengths, strict=True)),
        not_finite=(
            *_not_finite("batch", batch_tensors(batch)),
            *_not_finite("weights", checkpoint.tensors),
        ),
    )


def _not_finite(where: str, tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{where}: {name}"
        for name, t in tensors.items()
        if t.is_floating_point() and not bool(torch.isfinite(t).all())
    ]
