"""Curves for TensorBoard: RUNS/tensorboard/<night>/<stage>.<hash>/, one folder a run."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from recsys.resolve import resolve
from training.curves import Outcome, RunPlace

WRITER, HPARAMS = "torch.utils.tensorboard:SummaryWriter", "torch.utils.tensorboard.summary:hparams"
FOLDER = "tensorboard"
OUTCOME = ".outcome"
"""The ending of the file that `finish` writes."""
FLUSH_S = 10
"""What a kill can lose of the curves, at most."""
SEARCHED = ("training.", "model.", "retrieval.", "choice.")
"""Numbers and names of these sections go into the table of settings too; all else is in the text."""


class TensorBoardRun:
    """A writer of one run.

    A run that goes on writes one more file; TensorBoard then forgets what the first wrote from that step on.
    """

    def __init__(self, place: RunPlace, first_step: int, say: Callable[[str], None]) -> None:
        """Open the run's folder.

        Raises: OSError when it cannot be written.
        """
        del say
        folder = place.runs / FOLDER / place.name
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = resolve(WRITER)(str(folder), purge_step=first_step, flush_secs=FLUSH_S)
        if first_step == 0:
            self._describe(place)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, failed: bool) -> None:
        """Write what is left."""
        del failed
        self._writer.close()

    def _describe(self, place: RunPlace) -> None:
        """Write what the run is as a text, and its settings into the table that compares runs."""
        self._writer.add_text("run", _block(place.about), 0)
        settings = {
            key: value if isinstance(value, bool | int | float) else str(value)
            for key, value in place.about.items()
            if key.startswith(SEARCHED)
        }
        for summary in resolve(HPARAMS)(settings, {}):
            self._writer.file_writer.add_summary(summary)


def finish(place: RunPlace, outcome: Outcome) -> None:
    """Add what the bundle was measured at, at the run's last step, in a file of its own; twice is as once."""
    folder = place.runs / FOLDER / place.name
    if not folder.is_dir():
        return  # the fit was made without this writer
    for earlier in folder.glob(f"*{OUTCOME}"):
        earlier.unlink()
    writer = resolve(WRITER)(str(folder), filename_suffix=OUTCOME)
    for name, value in outcome.values.items():
        writer.add_scalar(name, value, outcome.step)
    writer.add_text("outcome", _block(outcome.tags), outcome.step)
    writer.close()


def _block(values: Mapping[str, Any]) -> str:
    """Give key and value by line, as Markdown that keeps lines as they are."""
    return "\n".join(f"    {key} = {json.dumps(value)}" for key, value in values.items())
