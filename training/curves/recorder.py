"""Recorder: watches a fit and gives its writers a point every so many steps.

Of several ranks all have one, and look at the same steps; rank 0 alone writes. A point is at its last step.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from recsys.resolve import resolve
from recsys.tasks import TaskSpec
from training.curves import WRITERS, RunPlace, Writer
from training.curves.probe import look
from training.curves.window import Window
from training.trainer.group import ALONE, Group
from training.trainer.moment import Moment, Progress
from training.trainer.optimizer import DenseOptimizer
from training.trainer.train_log import mean_losses
from training.trainer.watcher import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Which curves are written, and where: for a recorder in this process, or in each rank."""

    writers: tuple[str, ...]
    place: RunPlace
    write_every: int
    probe_every: int

    def to_json(self) -> dict[str, Any]:
        """Give JSON values."""
        said: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return said

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Take what `to_json` gave."""
        place = RunPlace(**{**said["place"], "runs": Path(said["place"]["runs"])})
        return cls(**{**said, "writers": tuple(said["writers"]), "place": place})


@dataclass(slots=True)
class _Span:
    """What is known of the steps since the last point."""

    since: float
    rows: int = 0
    losses: list[Mapping[str, float]] = field(default_factory=list)


class Recorder(Watcher):
    """A watcher of `fit`; used in a `with`, whose end writes the last point."""

    def __init__(
        self, curves: Curves, tasks: Sequence[TaskSpec], say: Callable[[str], None], group: Group = ALONE
    ) -> None:
        """Expect a fit; nothing is opened before its first step. Args: say: tells a person what failed."""
        self.curves, self.tasks, self.say, self.group = curves, tasks, say, group
        self.writers: dict[str, Writer] = {}
        self.window = Window(tasks, group)
        self.dense: DenseOptimizer | None = None
        self.step = -1
        self._rows: int | None = None
        self._span = _Span(0.0)
        self._waiting: deque[tuple[int, dict[str, float]]] = deque()
        """Points whose last losses are still on the device."""
        self._losses: deque[tuple[int, Mapping[str, float]]] = deque()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the point of the last steps; after an error what this rank knows alone: their losses."""
        if error is None and self._span.rows:
            self._add_point()
        elif self._losses:
            self._waiting.append((self._losses[-1][0], {}))
        self._write_ready()
        for name in list(self.writers):
            self._try(name, lambda writer: writer.close(failed=error is not None))

    def before_step(self, moment: Moment) -> None:
        """Open the writers before the first step; look at gradients and gates when it is time to."""
        if self.dense is None:
            self._open(moment.step)
            self._span = _Span(time.monotonic())
        self.dense = moment.dense
        every = self.curves.probe_every
        if every and moment.step % every == 0:
            self._write(moment.step, look(moment, self.group))

    def on_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Keep them for their point, and write it where it waited for them."""
        if self.writers:
            self._losses.append((step, losses))
            self._write_ready()

    def after_step(self, progress: Progress) -> None:
        """Keep what the point is made of; make it when it is time to."""
        self.step = progress.step
        self.window.add(progress.batch, progress.logits)
        if self._rows is None:
            own = torch.tensor([progress.batch.num_shown], device=progress.batch.device)
            self._rows = progress.rows - int(self.group.total(own))
        self._span.rows += progress.rows - self._rows
        self._rows = progress.rows
        if (self.step + 1) % self.curves.write_every == 0:
            self._add_point()

    def _add_point(self) -> None:
        assert self.dense is not None, "a step was made"
        values = self.window.values()
        now, span = time.monotonic(), self._span
        values["speed/rows_per_second"] = span.rows / max(now - span.since, 1e-9)
        for group in self.dense.groups:
            name = "dense" if group.scale == 1 else f"dense-x{group.scale:g}"
            values[f"learning_rate/{name}"] = group.learning_rate
        values["weight_norm/dense"] = _length([group.values for group in self.dense.groups])
        values["gradient_norm/all-losses"] = _length([group.gradient for group in self.dense.groups])
        self._span = _Span(now)
        self._waiting.append((self.step, values))
        self._write_ready()

    def _write_ready(self) -> None:
        """Write the points whose losses are all read."""
        while self._waiting and (not self.writers or self._is_read(self._waiting[0][0])):
            step, values = self._waiting.popleft()
            losses = []
            while self._losses and self._losses[0][0] <= step:
                losses.append(self._losses.popleft()[1])
            means = {f"loss/{name}": loss for name, loss in mean_losses(losses).items()}
            self._write(step, means | values)

    def _is_read(self, step: int) -> bool:
        return bool(self._losses) and self._losses[-1][0] >= step

    def _open(self, first_step: int) -> None:
        for name in self.curves.writers if self.group.rank == 0 else ():
            try:
                self.writers[name] = resolve(WRITERS[name].open)(self.curves.place, first_step, self.say)
            except Exception as error:
                self._give_up(name, error)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        for name in list(self.writers):
            self._try(name, lambda writer: writer.write(step, values))

    def _try(self, name: str, do: Callable[[Writer], None]) -> None:
        """Use a writer; one that fails is left out from there on."""
        try:
            do(self.writers[name])
        except Exception as error:  # of a third party, a disk, a network: no reason to lose the weights
            del self.writers[name]
            self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        self.say(
            f"{name}: {type(error).__name__}: {error}; the training goes on, and the curves of "
            f"{self.curves.place.name} end before step {self.step + 1}"
        )


def _length(tensors: Sequence[torch.Tensor]) -> float:
    return float(torch.stack([torch.linalg.vector_norm(t) for t in tensors]).norm())
