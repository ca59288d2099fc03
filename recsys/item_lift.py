"""How often an item was chosen where it was shown, beside all items: the score of the source `item_rate`.

A head spreads what is known of one item over many layers, and where labels are few it knows an item's own
rate less well than counting does. Counting says it in one number that needs no training.

Shape: I items.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.tasks import TaskSpec

PRIOR_POSITIVES = 5.0
"""Each item is taken to have been chosen as often beforehand, in as many impressions as that takes of all: an
item with a few impressions stays near 0, whatever became of them."""


def item_lifts(items: pl.DataFrame, task: TaskSpec | None) -> npt.NDArray[np.float32]:
    """Give log((h + p) / (n b + p)) of each item: h choices in n impressions, b all items' rate, p the prior.

    0 for an item that was never shown, and of all where nothing was chosen or counts are missing.

    Args: items [I]: a snapshot's, with counts of a life; task: whose feedback is counted.
    """
    chosen, shown = f"{task and task.name}_shown_life", "impressions_life"
    if chosen not in items.columns or shown not in items.columns:
        return np.zeros(items.height, np.float32)
    hits_I, times_I = (items[name].cast(pl.Float64).fill_null(0.0).to_numpy() for name in (chosen, shown))
    hits, times = float(hits_I.sum()), float(times_I.sum())
    if hits <= 0 or times <= 0:
        return np.zeros(items.height, np.float32)
    # A reversal may be counted on a later day than what it reverses: never below 0 choices.
    expected_I = times_I * (hits / times)
    lift_I: npt.NDArray[np.float64] = np.log(
        (np.maximum(hits_I, 0.0) + PRIOR_POSITIVES) / (expected_I + PRIOR_POSITIVES)
    )
    return lift_I.astype(np.float32)


def lifts_of(lift_I: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Give the lifts of rows [N]; 0 for rows behind the last: items that came after the counting."""
    found = np.zeros(rows.size, np.float32)
    known = rows < lift_I.size
    found[known] = lift_I[rows[known]]
    return found
