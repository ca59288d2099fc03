"""fit(learner, tables, batches) -> TrainLog. Reads no file, parses no flag; one process or many."""

import time
from collections.abc import Callable, Iterable, Sequence

from recsys.batch import Batch
from recsys.model.embeddings import Tables
from recsys.shapes import HeadSpec
from training.balancing import Balancer
from training.errors import DivergedError
from training.trainer.checkpoint import Checkpoint
from training.trainer.group import ALONE, Group
from training.trainer.learner import Learner
from training.trainer.loss_reader import LossReader
from training.trainer.moment import Progress
from training.trainer.optimizer import DenseOptimizer
from training.trainer.prefetch import batches_ahead
from training.trainer.settings import FitSettings
from training.trainer.step import Stepper
from training.trainer.train_log import Clock, TrainLog
from training.trainer.watcher import Watcher


def fit(
    learner: Learner,
    tables: Tables,
    batches: Iterable[Batch],
    balancer: Balancer,
    tasks: Sequence[HeadSpec],
    settings: FitSettings,
    watchers: Sequence[Watcher] = (),
    start: Checkpoint | None = None,
    group: Group = ALONE,
) -> TrainLog:
    """Make one optimiser step per batch, on the device of learner and tables.

    Args:
        batches: of the whole fit, or of what `start` has left of it.
        watchers: see every step, in the order given; losses come to them every `settings.read_every` steps.
        start: go on from here, to the same weights that an undisturbed fit ends with.
        group: several ranks that make each step together; `batches` are then this rank's slices.

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
        group=group,
    )
    log = TrainLog() if start is None else stepper.restore(start)
    clock, reader = Clock(log), LossReader(log, watchers, settings.read_every)

    def checkpoint() -> Checkpoint:
        reader.read()
        clock.read()
        return stepper.checkpoint(log)

    try:
        _learn(stepper, batches, log, reader, watchers, checkpoint)
    except DivergedError as found:
        error = _first(found, reader)
        for watcher in watchers:
            watcher.on_diverged(error, checkpoint)
        raise error from None
    clock.read()
    return log


def _first(found: DivergedError, reader: LossReader) -> DivergedError:
    """Read the losses that wait: a balancer may find a step wrong whose cause is a loss before it."""
    try:
        reader.read()
    except DivergedError as earlier:
        return earlier
    return found


def _learn(
    stepper: Stepper,
    batches: Iterable[Batch],
    log: TrainLog,
    reader: LossReader,
    watchers: Sequence[Watcher],
    checkpoint: Callable[[], Checkpoint],
) -> None:
    """Make the steps."""
    for batch in batches_ahead(batches, stepper.tables.device):
        stepper.dense.begin_step(log.steps)
        found = stepper.look_up(batch)
        moment = stepper.moment(log.steps, batch, found)
        for watcher in watchers:
            watcher.before_step(moment)
        losses, logits = stepper.losses(batch, found)
        reader.add(losses)
        stepper.descend(losses, found)
        rows = found.whole.rows
        log.rows += rows
        progress = Progress(log.steps, batch, logits, log.rows, checkpoint)
        log.steps += 1
        log.ends.append(time.perf_counter())
        for watcher in watchers:
            watcher.after_step(progress)
            watcher.on_rows(log.rows, rows)
    reader.read()
