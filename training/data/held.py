"""Scores of a day's rows as their lists began: rows whose state is another one then are scored once more."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from features.days import Days
from features.held import held_day

Score = Callable[[Days], Mapping[str, np.ndarray]]
"""Days -> arrays [N, …] by name: one value for each row of a day, in the order of its examples."""


def held_scores(
    live: Mapping[str, np.ndarray],
    score: Score,
    days: Days,
    i: int,
    group: pl.Series,
    folder: Path | None = None,
) -> dict[str, np.ndarray]:
    """Give day i's scores with users' state and the clock as at the first impression of each row's group.

    Args: live: what `score(days)` gave; score: of day i; group, folder: as `held_day` takes them.
    Returns: arrays like those of `live`; `live`'s own where no row's state changes: nothing is scored again.
    """
    with held_day(days, i, group, folder) as held:
        if held is None:
            return dict(live)
        again = score(held.days)
    found = {name: values.copy() for name, values in live.items()}
    for name, values in found.items():
        values[held.rows] = again[name]
    return found
