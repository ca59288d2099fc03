"""Checkpoints of ranks that share the tables: all of them gather, rank 0 writes."""

import torch

from training.trainer.group import Group
from training.trainer.moment import Progress
from training.trainer.saver import Saver
from training.trainer.watcher import Watcher

ASK_EVERY = 16
"""Steps between two looks at rank 0's clock, each of which costs a message."""


class JointSaver(Watcher):
    """Saves at the same step on every rank, when rank 0's saver says so."""

    def __init__(self, saver: Saver, group: Group, every: int = ASK_EVERY) -> None:
        """Ask every so many steps."""
        self.saver, self.group, self.every = saver, group, every

    def after_step(self, progress: Progress) -> None:
        """Gather and save, when it is time to."""
        if progress.step % self.every:
            return
        due = torch.tensor(float(self.group.rank == 0 and self.saver.is_due))
        if not float(self.group.total(due)):
            return
        try:
            checkpoint = progress.checkpoint()
        except OSError as error:  # rank 0's alone, when all have done their part
            self.saver.give_up(progress.step + 1, error)
            return
        if self.group.rank == 0:
            self.saver.save(checkpoint)
