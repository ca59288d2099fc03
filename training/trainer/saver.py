"""Checkpoints of a fit every few minutes, and the newest whole one to go on from."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from recsys.errors import DataError
from training.trainer.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from training.trainer.moment import Progress
from training.trainer.watcher import Watcher


class Saver(Watcher):
    """Keeps the newest checkpoint of a fit in a folder; the one before goes when the new one is whole.

    A checkpoint that cannot be written is reported, and the fit goes on.
    """

    def __init__(self, folder: Path, minutes: float, say: Callable[[str], None]) -> None:
        """Save into `folder` every so many minutes, never at 0; `say` tells a person about it."""
        self.folder, self.minutes, self.say = folder, minutes, say
        self.saved_at = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Tell whether it is time to save."""
        return bool(self.minutes) and time.monotonic() - self.saved_at >= 60 * self.minutes

    def after_step(self, progress: Progress) -> None:
        """Save, when it is time to."""
        if self.is_due:
            self.save(progress.checkpoint())

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and remove those before it."""
        self.saved_at = time.monotonic()
        before = self._found()
        target = self.folder / f"step-{checkpoint.log.steps:09d}"
        try:
            write_checkpoint(checkpoint, target)
        except (OSError, SafetensorError) as error:
            self.give_up(checkpoint.log.steps, error)
            return
        for old in before:
            if old != target:
                shutil.rmtree(old, ignore_errors=True)

    def give_up(self, step: int, error: Exception) -> None:
        """Say why there is no checkpoint; the next one is tried when it is due again."""
        self.saved_at = time.monotonic()
        self.say(f"no checkpoint at step {step}, training goes on: {error}")

    def read(self) -> Checkpoint | None:
        """Read the newest checkpoint that is whole; say what is found, and what is not used and why."""
        for other in sorted(self.folder.parent.glob(f".*{self.folder.suffix}")):
            if other != self.folder:
                self.say(
                    f"{other} has the checkpoint of a run with other code, settings or data: it is not used; "
                    "remove it unless that run will go on"
                )
        for path in reversed(self._found()):
            try:
                found = read_checkpoint(path)
            except DataError as error:
                self.say(f"{error}; it is not used")
                continue
            self.say(f"goes on from step {found.log.steps:,} ({found.log.rows:,} rows), saved in {path}")
            return found
        return None

    def _found(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))
