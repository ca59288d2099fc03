"""A fit that diverges stops, and what the step needs to be made again is saved.

A loss that is not finite ends any fit. The guard also ends one whose loss explodes, and keeps the batches
whose losses are not read yet, so that the first bad one is found however seldom losses are read.
"""

import math
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from recsys.batch import Batch
from training.errors import DivergedError
from training.trainer.batch_file import batch_tensors
from training.trainer.checkpoint import Checkpoint, write_checkpoint
from training.trainer.group import ALONE, Group
from training.trainer.moment import Moment
from training.trainer.watcher import Watcher

BATCH, STATE = "batch.rank{rank}.safetensors", "state"
RANDOM = "random"
"""In a batch's file: the rank's random state."""
REFERENCE_STEPS = 100
"""The first steps, in which the learning rate rises too: later losses are held against their mean."""
FACTOR = 5.0
FLOOR = math.log(2)
"""No loss below a coin's is called exploded, however small it once was."""
SMOOTHING = 0.98
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Held:
    """A step whose loss has not been read yet."""

    step: int
    batch: Batch
    random: Tensor
    """The random state before the step."""


class Explosion:
    """Tells when the moving average of a loss is FACTOR times the mean of its first steps.

    A loss of 0 (nothing observed) is not counted.
    """

    def __init__(self) -> None:
        """Start without a step."""
        self.count: dict[str, int] = {}
        self.reference: dict[str, float] = {}
        self.average: dict[str, float] = {}

    def see(self, losses: Mapping[str, float]) -> str | None:
        """Take a step's losses; give the name of one that explodes."""
        for name, loss in losses.items():
            if loss <= 0.0:
                continue
            seen = self.count[name] = self.count.get(name, 0) + 1
            if seen <= REFERENCE_STEPS:
                mean = self.reference.get(name, 0.0)
                self.reference[name] = self.average[name] = mean + (loss - mean) / seen
                continue
            self.average[name] = SMOOTHING * self.average[name] + (1 - SMOOTHING) * loss
            if self.average[name] > max(FLOOR, FACTOR * self.reference[name]):
                return name
        return None


class Guard(Watcher):
    """Ends a fit whose loss explodes; saves batch, random state and weights of the step that is bad."""

    def __init__(
        self,
        folder: Path,
        describe: Callable[[Path], None],
        earlier: Sequence[Mapping[str, float]] = (),
        group: Group = ALONE,
    ) -> None:
        """Save into `folder`.

        Args: describe: writes what the model is built from beside the step; earlier: losses of the run that
        this one goes on from; group: of several ranks each has a guard, and saves its slice of the batch.
        All see the same losses, so all stop at the same step.
        """
        self.folder, self.describe, self.group = folder, describe, group
        self.explosion = Explosion()
        for losses in earlier:
            self.explosion.see(losses)
        self.held: deque[Held] = deque()

    def before_step(self, moment: Moment) -> None:
        """Keep the batch until its losses are read."""
        self.held.append(Held(moment.step, moment.batch, torch.get_rng_state()))

    def on_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Let earlier batches go; stop where a loss explodes."""
        while self.held[0].step < step:
            self.held.popleft()
        name = self.explosion.see(losses)
        if name is not None:
            average, reference = self.explosion.average[name], self.explosion.reference[name]
            raise DivergedError(
                f"the loss of {name} explodes at step {step}: its average is {average:.4g}, and was "
                f"{reference:.4g} in the first {REFERENCE_STEPS} steps; lower [training] learning_rate",
                step,
            )

    def on_diverged(self, error: DivergedError, checkpoint: Callable[[], Checkpoint]) -> None:
        """Save the step and raise the error again, with the place.

        The weights are those before the step where losses are read at every step, else those at the reading.
        """
        held = next((h for h in self.held if h.step == error.step), self.held[-1])
        target = self.folder / f"step-{held.step:09d}"
        state = self._all_do(lambda: self._cleared(target, checkpoint), error, held.step)
        self._all_do(lambda: self._save(target, held, state), error, held.step)
        what = "Its batch, random state and weights are"
        if self.group.size > 1:
            what = f"The {self.group.size} processes' slices of its batch, random states and the weights are"
        raise DivergedError(
            f"{error}. {what} in {target}: `recsys train replay {target}` makes the step again", held.step
        ) from error

    def _all_do(self, part: Callable[[], T], error: DivergedError, step: int) -> T:
        """Make a part of the saving, and wait for the other ranks; none goes on when one could not.

        The first rank that ends takes the others with it: all are done when one goes on.
        """
        failed = ""
        try:
            made = part()
        except (OSError, SafetensorError) as found:
            failed = str(found) or type(found).__name__
        if self.group.total(torch.tensor(float(bool(failed)))) > 0:
            why = failed or "another rank could not"
            raise DivergedError(f"{error}. The step could not be saved: {why}", step) from error
        return made

    def _cleared(self, target: Path, checkpoint: Callable[[], Checkpoint]) -> Checkpoint:
        """Remove what was saved of this step before; give the state, which all ranks gather."""
        if self.group.rank == 0:
            shutil.rmtree(target, ignore_errors=True)  # perhaps of more ranks
        return checkpoint()

    def _save(self, target: Path, held: Held, state: Checkpoint) -> None:
        """Write a rank's slice and random state; rank 0 also what all have in common."""
        own = {name: t.contiguous().cpu() for name, t in batch_tensors(held.batch).items()}
        if self.group.rank == 0:
            log = replace(state.log, steps=held.step)
            tensors = {**state.tensors, "random": held.random}
            write_checkpoint(replace(state, tensors=tensors, log=log), target / STATE)
            self.describe(target)
        target.mkdir(parents=True, exist_ok=True)
        save_file(own | {RANDOM: held.random}, target / BATCH.format(rank=self.group.rank))
