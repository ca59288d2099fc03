"""What looks at a fit while it goes on: progress, checkpoints, scalars for people, guards and probes."""

from collections.abc import Callable, Mapping

from training.errors import DivergedError
from training.trainer.checkpoint import Checkpoint
from training.trainer.moment import Moment, Progress


class Watcher:
    """Sees every step of a fit and does nothing; a subclass says what it does.

    A watcher leaves the weights and the random states as they are. An error that it raises ends the fit.
    """

    def before_step(self, moment: Moment) -> None:
        """See a step that is about to be made."""

    def on_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """See a step's losses: every step's, in order, whenever they are read from the device."""

    def on_diverged(self, error: DivergedError, checkpoint: Callable[[], Checkpoint]) -> None:
        """See the error that ends the fit before its next step; `checkpoint` gives the state as it is."""

    def after_step(self, progress: Progress) -> None:
        """See a step that was made."""

    def on_rows(self, rows: int, of_step: int) -> None:
        """See how many rows were learned so far, and by the last step; also where others make the steps."""
