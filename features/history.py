"""A user's last events, exact in time: what a request would have read from the store.

An event is visible to a row when received_at < state_at - lag, strictly: an event at the very edge is not
seen. `state_at` is the row's `shown_at`, unless its state is held (`features.held`). Order is (received_at,
feedback_id), so equal instants have one order everywhere. An event that was taken back keeps its place among
the last ones and is masked from the moment its reversal is visible.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import polars as pl

from recsys.snapshot import state_at

ORDER = ("user_id", "received_at", "feedback_id")
EVENT_COLUMNS = ("user_id", "item_id", "kind", "value", "received_at", "feedback_id")
VOID = "void_at"
"""When the event's reversal was received; null: it stands."""


def day_events(
    tail: pl.DataFrame | None,
    feedback: pl.DataFrame,
    kinds: Sequence[str],
    reversals: Mapping[str, str],
) -> pl.DataFrame:
    """Merge the tail of earlier days with one day's feedback, sorted by (user, received_at, feedback_id).

    Args: kinds: what histories hold; reversals: kind -> the kind that takes it back.
    """
    none = pl.lit(None, dtype=pl.Datetime("ms", "UTC")).alias(VOID)
    today = feedback.filter(pl.col("kind").is_in(list(kinds))).select(*EVENT_COLUMNS, none)
    events = today if tail is None else pl.concat([tail.select(*EVENT_COLUMNS, VOID), today])
    return _voided(events, feedback, reversals).sort(ORDER)


def split_tail(
    tail: pl.DataFrame | None, impressions: pl.DataFrame, feedback: pl.DataFrame
) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
    """Split a tail into the events of users that have a row on this day, and those of all others.

    The others' events stay as they are: a night sorts only the events of its own users.
    """
    if tail is None:
        return None, None
    today = pl.concat([impressions["user_id"], feedback["user_id"]]).unique().implode()
    mine = tail["user_id"].is_in(today)
    return tail.filter(mine), tail.filter(~mine)


def join_tail(others: pl.DataFrame | None, mine: pl.DataFrame) -> pl.DataFrame:
    """Put two tails of different users together, in order."""
    if others is None or others.is_empty():
        return mine
    return others.select(mine.columns).merge_sorted(mine, key="user_id")


def next_tail(events: pl.DataFrame, length: int) -> pl.DataFrame:
    """Keep each user's last `length` events: the base that the store publishes for tomorrow."""
    return events.filter(pl.int_range(pl.len()).reverse().over("user_id") < length)


def history_bounds(impressions: pl.DataFrame, events: pl.DataFrame, length: int, lag_s: int) -> pl.DataFrame:
    """Find, per impression, the slice [history_start, history_stop) of events it may see.

    Returns: two UInt32 columns in the order of impressions; start = stop = 0 where there is no history.
    """
    timeline = Timeline(events, impressions, lag_s)
    start, stop = timeline.slices(events)
    start = np.maximum(start, stop - length)
    start, stop = (np.where(start < stop, bound, 0) for bound in (start, stop))
    return pl.DataFrame({"history_start": start.astype(np.uint32), "history_stop": stop.astype(np.uint32)})


class Timeline:
    """Requests placed among their users' events by one sorted search.

    Keys are (user rank, rank of the instant) in one integer: a user's events at t < x lie below x's key.
    """

    def __init__(self, events: pl.DataFrame, impressions: pl.DataFrame, lag_s: int) -> None:
        """Rank users and instants; `events` must hold every event that `slices` will be asked for."""
        users = pl.concat([events.select("user_id"), impressions.select("user_id")]).unique()
        self._users = users.sort("user_id").with_row_index("user_rank")
        self._instants = events["received_at"].unique().sort().to_physical().to_numpy()
        visible_until = state_at(impressions) - timedelta(seconds=lag_s)
        self._request_keys = self._keys(impressions.select("user_id", visible_until.alias("at")))

    def slices(self, events: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Give [start, stop) of the visible events per request; events sorted by (user_id, received_at)."""
        event_keys = self._keys(events.select("user_id", at="received_at"))
        first_of_user = self._request_keys - self._request_keys % (self._instants.size + 1)
        return (
            np.searchsorted(event_keys, first_of_user, side="left"),
            np.searchsorted(event_keys, self._request_keys, side="left"),
        )

    def _keys(self, rows: pl.DataFrame) -> np.ndarray:
        ranked = rows.join(self._users, on="user_id", how="left", maintain_order="left")
        at = np.searchsorted(self._instants, ranked["at"].dt.epoch("ms").to_numpy(), side="left")
        keys: np.ndarray = ranked["user_rank"].cast(pl.Int64).to_numpy() * (self._instants.size + 1) + at
        return keys


def _voided(events: pl.DataFrame, feedback: pl.DataFrame, reversals: Mapping[str, str]) -> pl.DataFrame:
    """Note on each event the first reversal, by the same user of the same item, received at or after it."""
    undo = {undoing: kind for kind, undoing in reversals.items()}
    undone = feedback.filter(pl.col("kind").is_in(list(undo))).select(
        "user_id", "item_id", pl.col("kind").replace_strict(undo), undone_at="received_at"
    ) if undo else None  # fmt: skip
    if undone is None or undone.is_empty():
        return events
    key = ["user_id", "item_id", "kind"]
    found = events.sort("received_at").join_asof(
        undone.sort("undone_at"),
        left_on="received_at",
        right_on="undone_at",
        by=key,
        strategy="forward",
        check_sortedness=False,
    )
    return found.with_columns(pl.coalesce(VOID, "undone_at").alias(VOID)).drop("undone_at")
