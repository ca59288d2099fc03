"""A user's last events, exact in time: what a request at `shown_at` would have read from the store.

An event is visible to a request when received_at < shown_at - lag, strictly: an event at the very edge is not
seen. Order is (received_at, feedback_id), so equal instants have one order everywhere.
"""

from datetime import timedelta

import numpy as np
import polars as pl

EVENT_COLUMNS = ("user_id", "item_id", "kind", "value", "received_at", "feedback_id")


def day_events(tail: pl.DataFrame | None, feedback: pl.DataFrame, kinds: tuple[str, ...]) -> pl.DataFrame:
    """Merge the tail of earlier days with one day's feedback, sorted by (user, received_at, feedback_id)."""
    today = feedback.filter(pl.col("kind").is_in(list(kinds))).select(EVENT_COLUMNS)
    events = today if tail is None else pl.concat([tail.select(EVENT_COLUMNS), today])
    return events.sort("user_id", "received_at", "feedback_id")


def next_tail(events: pl.DataFrame, length: int) -> pl.DataFrame:
    """Keep each user's last `length` events: the base that the store publishes for tomorrow."""
    return events.filter(pl.int_range(pl.len()).reverse().over("user_id") < length)


def history_bounds(impressions: pl.DataFrame, events: pl.DataFrame, length: int, lag_s: int) -> pl.DataFrame:
    """Find, per impression, the slice [history_start, history_stop) of events it may see.

    Returns: two UInt32 columns in the order of impressions; start = stop where there is no history.
    """
    users = pl.concat([events.select("user_id"), impressions.select("user_id")]).unique().sort("user_id")
    users = users.with_row_index("user_rank")
    instants = events["received_at"].unique().sort().to_physical().to_numpy()
    visible_until = pl.col("shown_at") - timedelta(seconds=lag_s)
    event_keys = _keys(events.select("user_id", at="received_at"), users, instants)
    request_keys = _keys(impressions.select("user_id", at=visible_until), users, instants)
    # Keys are (user rank, rank of the instant) in one integer: a user's events at t < x lie below x's key.
    stop = np.searchsorted(event_keys, request_keys, side="left")
    first_of_user = np.searchsorted(
        event_keys, request_keys - request_keys % (instants.size + 1), side="left"
    )
    start = np.maximum(first_of_user, stop - length)
    return pl.DataFrame({"history_start": start.astype(np.uint32), "history_stop": stop.astype(np.uint32)})


def _keys(rows: pl.DataFrame, users: pl.DataFrame, instants: np.ndarray) -> np.ndarray:
    ranked = rows.join(users, on="user_id", how="left", maintain_order="left")
    at = np.searchsorted(instants, ranked["at"].dt.epoch("ms").to_numpy(), side="left")
    keys: np.ndarray = ranked["user_rank"].cast(pl.Int64).to_numpy() * (instants.size + 1) + at
    return keys
