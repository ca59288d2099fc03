"""fit(learner, tables, batches) -> TrainLog. Reads no file, parses no flag; one process or many."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from recsys.batch import Batch
from recsys.model.embeddings import Tables
from recsys.tasks import TaskSpec
from training.balancing import Balancer
from training.errors import DivergedError
from training.trainer.learner import Learner
from training.trainer.moment import Observer
from training.trainer.optimizer import DenseOptimizer
from training.trainer.prefetch import ahead
from training.trainer.settings import FitSettings
from training.trainer.step import Stepper
from training.trainer.train_log import TrainLog


def fit(
    learner: Learner,
    tables: Tables,
    batches: Iterable[Batch],
    balancer: Balancer,
    tasks: Sequence[TaskSpec],
    settings: FitSettings,
    on_step: Callable[[int], None] = lambda _rows: None,
    observer: Observer | None = None,
) -> TrainLog:
    """Make one optimiser step per batch. An observer sees every step before it is made.

    Raises: DivergedError when a loss, or what a balancer makes of the gradients, is not finite.
    """
    learner.train()
    stepper = Stepper(
        learner=learner,
        tables=tables,
        balancer=balancer,
        tasks=tasks,
        settings=settings,
        dense=DenseOptimizer(learner, settings),
    )
    log, began, began_cpu = TrainLog(), time.perf_counter(), time.process_time()
    for batch in ahead(batches):
        stepper.dense.begin_step(log.steps)
        rows = tables.lookup(batch.rows)
        if observer is not None:
            observer(stepper.moment(log.steps, batch, rows))
        losses = stepper.losses(batch, rows)
        log.losses.append(_finite(losses, log.steps))
        stepper.descend(losses, batch, rows)
        log.steps += 1
        log.rows += batch.size
        on_step(batch.size)
    log.seconds, log.cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return log


def _finite(losses: Mapping[str, Tensor], step: int) -> dict[str, float]:
    """Read the losses' values."""
    values = {k: float(v.detach()) for k, v in losses.items()}
    if not all(math.isfinite(v) for v in values.values()):
        raise DivergedError(f"loss is not finite at step {step}: {values}; lower [training] learning_rate")
    return values
