"""How thinly negatives are drawn beside each row: a head shall learn the odds of the stream, not of the draw.

A log that does not say what was shown has negatives drawn: of what its user did not choose at an instant a
share r is kept, and of what was chosen all. So the odds of a choice among the rows are those of the stream
over r. Were r the same everywhere, calibration would take it out. It is not: who takes thirty items at once
has thirty times as many drawn as who takes one, and among the rows both choose a fifth of all. So in training
log(1 / r) is added to a head's logit, which is left to tell the odds of the stream.
Source: King & Zeng, Political Analysis 2001 (prior correction of case-control samples).
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.snapshot import DaySnapshot

_RATE, _DRAWN, _AT = "sampling_rate", "sampled", ("user_id", "shown_at")


def drawn_rate(snapshot: DaySnapshot) -> float | None:
    """Give the share that a day keeps of what its negatives are drawn from; None where none was drawn."""
    rate: float | None = snapshot.table("examples", columns=[_RATE, _DRAWN]).select(_kept()).item()
    return rate


def log_thinned(snapshot: DaySnapshot, part: int | None, of_day: float) -> npt.NDArray[np.float32]:
    """Give log(rate of the day / rate beside the row) of each example [N] of a day or one part of its users.

    The rate beside a row is that of what was drawn for its user at its instant. A row beside which nothing
    was drawn has the day's: 0. Relative to the day, logits keep the level that they have without.

    Args: of_day: `drawn_rate`.
    """
    rows = snapshot.table("examples", part, [*_AT, _RATE, _DRAWN])
    beside = rows.select((of_day / _kept().over(_AT)).log().fill_null(0.0).cast(pl.Float32))
    found: npt.NDArray[np.float32] = beside.to_series().to_numpy()
    return found


def _kept() -> pl.Expr:
    """Give the share that is kept of what negatives are drawn from; null where none was."""
    drawn = pl.col(_RATE).filter(_DRAWN)
    return pl.when(drawn.len() > 0).then(drawn.len() / (1 / drawn).sum())
