"""What the bench times on our side: the chain of snapshots, and training rows joined from it."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl

from features.build import cross_rows, item_rows, user_rows
from features.days import LATE_PERIODS, Days
from features.labels import make_labels
from features.parts import write_table
from recsys.config import RunConfig

KEY = ["impression_id", "user_id"]


def write_training_rows(days: Days, wanted: Sequence[date], config: RunConfig, folder: Path) -> int:
    """Write the training days' rows, one file per day and share of the users; give how many."""
    written = 0
    for i, snapshot in enumerate(days):
        if snapshot.day in wanted:
            for part in range(snapshot.num_parts):
                rows = training_rows(days, i, part, config)
                write_table(rows, folder / f"{snapshot.day}-{part:04d}.parquet")
                written += rows.height
    return written


def training_rows(days: Days, i: int, part: int, config: RunConfig) -> pl.DataFrame:
    """Join one day's impressions with yesterday's published values, history bounds and labels."""
    snapshot, previous = days[i], days.before(i)
    examples = snapshot.table("examples", part)
    later = days[i : i + 1 + LATE_PERIODS]
    feedback = pl.concat([s.table_of_part("feedback", part, snapshot.num_parts) for s in later])
    labels, _ = make_labels(examples, feedback, config.tasks, days.as_of)
    items = item_rows(previous, snapshot).rename(lambda c: c if c == "item_id" else f"item_{c}")
    users = user_rows(previous, snapshot, part).rename(lambda c: c if c == "user_id" else f"user_{c}")
    rows = (
        examples.join(labels, on=KEY, how="left", maintain_order="left")
        .join(users, on="user_id", how="left", maintain_order="left")
        .join(items, on="item_id", how="left", maintain_order="left")
    )
    for group in config.features.cross_user_by:
        cross = cross_rows(group, previous, snapshot, part)
        key = {"user_id": "user_id", group: group if group == "item_id" else f"item_{group}"}
        # A day's users are few among all that have counts: only theirs are hashed.
        mine = cross.join(examples.select("user_id").unique(), on="user_id", how="semi")
        named = mine.rename(lambda c, key=key, group=group: key.get(c, f"cross_{group}_{c}"))  # type: ignore[misc]
        rows = rows.join(named, on=list(key.values()), how="left", maintain_order="left")
    return rows
