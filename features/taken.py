"""What each user has taken: the events from which repeats and neighbours of items are counted.

    the tail of the day before + the day's feedback of the taking kinds ─▶ those that stand ─▶ the newest

It is a table beside the model's history: longer, of fewer kinds, and without what was taken back.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta

import numpy as np
import polars as pl

from features.definitions import reversals
from features.history import EVENT_COLUMNS, VOID, day_events, join_tail, next_tail, split_tail
from features.sessions import leave_merged
from recsys.config import RunConfig
from recsys.snapshot import DaySnapshot
from recsys.user_sources import TakenRows

TABLE = "taken"
REQUESTS_AT_ONCE = 10_000
"""Each is joined with all events of its user."""


def day_taken(
    before: pl.DataFrame | None,
    impressions: pl.DataFrame,
    feedback: pl.DataFrame,
    config: RunConfig,
    reversals: Mapping[str, str],
) -> pl.DataFrame:
    """Give each user's newest standing events of the taking kinds at the end of a day, by user and time."""
    mine, others = split_tail(before, impressions, feedback)
    events = day_events(mine, feedback, config.taken_kinds, reversals)
    standing = leave_merged(events, feedback).filter(pl.col(VOID).is_null())
    # Events of one instant are cut as a server cuts them, which has no feedback ids of the base.
    standing = standing.sort("user_id", "received_at", "item_id", "kind", "feedback_id")
    return join_tail(others, next_tail(standing, config.item_item.history))


def users_taken(snapshot: DaySnapshot, users: pl.Series) -> pl.DataFrame:
    """Give the rows of some users [U]: their place `user`, item_id, kind, at_ms, sorted by user."""
    numbered = pl.DataFrame({"user_id": users, "user": np.arange(users.len(), dtype=np.int64)})
    rows = snapshot.table(TABLE).join(numbered, on="user_id", how="inner")
    return rows.select(
        "user", "item_id", "kind", at_ms=pl.col("received_at").dt.epoch("ms"), id="feedback_id"
    ).sort("user", "at_ms", "id").drop("id")  # fmt: skip


def requests_taken(
    before: DaySnapshot, day: DaySnapshot, requests: pl.DataFrame, config: RunConfig
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Give what the user of each request [R] had taken as a server saw it then, the day itself included.

    Args: before, day: snapshots by this config; requests: user_id and shown_at, on the day.
    Returns: some requests at a time, in order: how many, and rows as of `users_taken`, in which `user` is the
    request's place among them.
    """
    mine = pl.col("user_id").is_in(requests["user_id"].unique().implode())
    feedback = day.table("feedback", columns=EVENT_COLUMNS).filter(mine)
    standing = before.table(TABLE).filter(mine)
    events = day_events(standing, feedback, config.taken_kinds, reversals(config.tasks))
    for part in requests.iter_slices(REQUESTS_AT_ONCE):
        yield part.height, _taken_until(part, events, config)


def taken_rows(
    events: pl.DataFrame, num_users: int, item_ids: pl.Series, config: RunConfig
) -> list[TakenRows]:
    """Split the rows of `users_taken` by user [U], with rows of a catalogue."""
    catalogue = pl.DataFrame({"item_id": item_ids, "row": np.arange(item_ids.len(), dtype=np.int64)})
    places = events.select("item_id").join(catalogue, on="item_id", how="left", maintain_order="left")["row"]
    rows, at_ms = places.fill_null(-1).to_numpy(), events["at_ms"].to_numpy()
    takes = events["kind"].is_in(list(config.taking_kinds)).to_numpy()
    repeats = events["kind"].is_in(list(_repeated_kinds(config))).to_numpy()
    stops = np.searchsorted(events["user"].to_numpy(), np.arange(num_users + 1))
    return [
        TakenRows(rows=rows[a:b], at_ms=at_ms[a:b], takes=takes[a:b], repeats=repeats[a:b])
        for a, b in zip(stops[:-1].tolist(), stops[1:].tolist(), strict=True)
    ]


def _repeated_kinds(config: RunConfig) -> tuple[str, ...]:
    """List the kinds that speak for taking an item again."""
    return config.policy.repeat_kinds if config.policy.repeat == "learn" else ()


def _taken_until(requests: pl.DataFrame, events: pl.DataFrame, config: RunConfig) -> pl.DataFrame:
    lag = timedelta(seconds=config.features.ingestion_lag)
    asked = requests.select(
        "user_id", user=pl.int_range(pl.len(), dtype=pl.Int64), until=pl.col("shown_at") - lag
    )
    stood = pl.col(VOID).is_null() | (pl.col(VOID) >= pl.col("until"))
    seen = asked.join(events, on="user_id").filter(pl.col("received_at") < pl.col("until"), stood)
    # Events of one instant are cut as in `day_taken`.
    newest = seen.sort("user", "received_at", "item_id", "kind", "feedback_id").filter(
        pl.int_range(pl.len()).reverse().over("user") < config.item_item.history
    )
    return newest.select("user", "item_id", "kind", at_ms=pl.col("received_at").dt.epoch("ms"))
