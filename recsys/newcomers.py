"""How new an item is to those who are shown lists: the score of the source `newcomer`.

What heads and sources say of an item that hardly anyone was shown lies close to the mean, so it never reaches
a page, and is never learned. The source is optimism in the face of that: it lifts a newcomer until there are
impressions of its own to say what it is worth. Lists stay greedy in the score, so propensities stay exact.
Source: initial optimism, Sutton & Barto, Reinforcement Learning, 2.6.

Shapes: I items, N rows.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

SHOWN: Final = "impressions_life"
"""Column of a snapshot's items, and of a bundle's: how often each was shown."""


def newness(impressions: npt.NDArray[np.int64], gone_at: float) -> npt.NDArray[np.float32]:
    """Give 1 for what was never shown, in a straight line down to 0 for what was shown `gone_at` times."""
    found: npt.NDArray[np.float32] = np.maximum(1.0 - impressions / gone_at, 0.0).astype(np.float32)
    return found


def times_shown(items: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Read how often each item of a frame was shown [I]; 0 where nothing is known."""
    if SHOWN not in items.columns:
        return np.zeros(items.height, np.int64)
    found: npt.NDArray[np.int64] = items[SHOWN].cast(pl.Int64).fill_null(0).to_numpy()
    return found


def newness_of(
    shown_I: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], gone_at: float
) -> npt.NDArray[np.float32]:
    """Give the newness of rows [N]; rows behind the last, and negative ones, came after the counting: 1."""
    times = np.zeros(rows.size, np.int64)
    known = (rows >= 0) & (rows < shown_I.size)
    times[known] = shown_I[rows[known]]
    return newness(times, gone_at)
