"""Losses of many steps leave the device in one copy: reading a number makes the processor wait for it."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from training.errors import DivergedError
from training.trainer.train_log import TrainLog
from training.trainer.watcher import Watcher


class LossReader:
    """Collects the losses of steps; reads them every so many into the log, and shows them to watchers."""

    def __init__(self, log: TrainLog, watchers: Sequence[Watcher], every: int) -> None:
        """Read into a log, which may have steps already. Args: every: steps, at least 1."""
        self.log, self.watchers, self.every = log, watchers, every
        self._waiting: list[dict[str, Tensor]] = []

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Take a step's losses; read what waits when it is enough.

        Raises: as `read`.
        """
        self._waiting.append({name: loss.detach() for name, loss in losses.items()})
        if len(self._waiting) >= self.every:
            self.read()

    def read(self) -> None:
        """Read the losses that wait.

        Raises: DivergedError, naming the first step at which one is not finite.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        rows = torch.stack([torch.stack([loss.float() for loss in step.values()]) for step in waiting])
        for step, row in zip(waiting, rows.tolist(), strict=True):
            values, number = dict(zip(step, row, strict=True)), len(self.log.losses)
            bad = ", ".join(name for name, value in values.items() if not math.isfinite(value))
            if bad:
                raise DivergedError(
                    f"the loss of {bad} is not finite at step {number}; lower [training] learning_rate",
                    number,
                )
            self.log.losses.append(values)
            for watcher in self.watchers:
                watcher.on_losses(number, values)
