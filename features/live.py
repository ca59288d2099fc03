"""Counters since the snapshot, as of each request: the user's feedback of the day, less reversals.

`count_live` fills training rows from a day's feedback; `live_values` gives the same numbers from the events
that the online store holds. Visibility is that of histories: received_at < state_at - lag, strictly.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from features.definitions import LIVE_AGE, live_count
from features.history import Timeline
from features.store import Event
from recsys.snapshot import state_at
from recsys.tasks import TaskSpec


def count_live(
    impressions: pl.DataFrame, feedback: pl.DataFrame, tasks: Sequence[TaskSpec], lag_s: int
) -> pl.DataFrame:
    """Count per impression its user's visible feedback of the same period, one Int64 column per task.

    Returns: also `live_seconds` since the last visible feedback of any task, null where there is none.
    """
    kinds = _kinds(tasks)
    mine = feedback.filter(pl.col("kind").is_in(sorted(kinds))).sort("user_id", "received_at", "feedback_id")
    timeline = Timeline(mine, impressions, lag_s)
    counted: dict[str, np.ndarray] = {}
    for kind in kinds:
        start, stop = timeline.slices(mine.filter(pl.col("kind") == kind))
        counted[kind] = stop - start
    columns = {live_count(t): _net(t, counted) for t in tasks}
    start, stop = timeline.slices(mine)
    at = mine["received_at"].dt.epoch("ms").to_numpy()
    last = at[np.maximum(stop - 1, 0)] if at.size else np.zeros(stop.size, np.int64)
    age = state_at(impressions).dt.epoch("ms").to_numpy() - last
    seconds = pl.Series(LIVE_AGE, np.where(stop > start, age // 1000, -1), dtype=pl.Int64)
    return pl.DataFrame(columns).with_columns(seconds.replace(-1, None))


def live_values(events: Iterable[Event], tasks: Sequence[TaskSpec], at_ms: int) -> dict[str, int | None]:
    """Count one user's events, all of them visible and received since the snapshot, as `count_live` does."""
    kinds = _kinds(tasks)
    counted = dict.fromkeys(kinds, 0)
    last: int | None = None
    for event in events:
        if event.kind in counted:
            counted[event.kind] += 1
            last = event.received_at_ms if last is None else max(last, event.received_at_ms)
    found: dict[str, int | None] = {
        live_count(t): counted[t.feedback] - (counted[t.reversal] if t.reversal is not None else 0)
        for t in tasks
    }
    return found | {LIVE_AGE: None if last is None else (at_ms - last) // 1000}


def _kinds(tasks: Sequence[TaskSpec]) -> tuple[str, ...]:
    kinds = (k for t in tasks for k in (t.feedback, t.reversal) if k is not None)
    return tuple(dict.fromkeys(kinds))


def _net(task: TaskSpec, counted: dict[str, np.ndarray]) -> np.ndarray:
    taken_back = counted[task.reversal] if task.reversal is not None else 0
    net: np.ndarray = (counted[task.feedback] - taken_back).astype(np.int64)
    return net
