"""Losses of many steps leave the device in one copy: reading a number makes the processor wait for it."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from training.errors import DivergedError
from training.trainer.train_log import TrainLog


class LossReader:
    """Collects the losses of steps, and reads them every so many."""

    def __init__(self, log: TrainLog, every: int) -> None:
        """Read into a log. Args: every: steps, at least 1."""
        self.log, self.every = log, every
        self._waiting: list[dict[str, Tensor]] = []

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Take a step's losses; read what waits when it is enough.

        Raises: as `read`.
        """
        self._waiting.append({name: loss.detach() for name, loss in losses.items()})
        if len(self._waiting) >= self.every:
            self.read()

    def read(self) -> None:
        """Put the losses that wait into the log.

        Raises: DivergedError, naming the first step at which one is not finite.
        """
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        rows = torch.stack([torch.stack([loss.float() for loss in step.values()]) for step in waiting])
        for step, row in zip(waiting, rows.tolist(), strict=True):
            values = dict(zip(step, row, strict=True))
            if not all(math.isfinite(v) for v in row):
                raise DivergedError(
                    f"loss is not finite at step {len(self.log.losses)}: {values}; "
                    "lower [training] learning_rate"
                )
            self.log.losses.append(values)
