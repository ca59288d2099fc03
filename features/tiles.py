"""One day's events -> daily tiles of integers; tiles -> windowed aggregates by addition.

Counts are counts, sums of stars are sums of half-stars: integers add exactly, in any order, so
lifetime(D) = lifetime(D-1) + tile(D) gives the same number as adding everything up again. Rates are made in
the encoder only. Events are filed by when they were received (impressions: shown), never by what they are
later credited to, so a tile never changes after its day.
"""

from collections.abc import Sequence
from datetime import date

import polars as pl

from features.definitions import LIFETIME
from recsys.tasks import TaskSpec


def tile(
    impressions: pl.DataFrame, feedback: pl.DataFrame, key: str, tasks: Sequence[TaskSpec]
) -> pl.DataFrame:
    """Count one day by `user_id` or `item_id`: impressions, feedback per task, half-stars, last feedback.

    Sampled negatives were never shown to anybody: they are not counted.
    """
    shown = impressions.filter(~pl.col("sampled")).group_by(key).agg(impressions=pl.len().cast(pl.Int64))
    measures: list[pl.Expr] = []
    for task in tasks:
        mine = pl.col("kind") == task.feedback
        measures.append(mine.sum().cast(pl.Int64).alias(f"{task.name}_count"))
        if not task.is_binary:
            halves = (pl.col("value").filter(mine) * 2).round().sum().cast(pl.Int64)
            measures.append(halves.alias(f"{task.name}_halves"))
    if key == "item_id":  # what a session did was its item's already, before it became a user's
        feedback = feedback.filter(pl.col("merged_from").is_null())
    done = feedback.group_by(key).agg(*measures, last_feedback_at=pl.col("received_at").max())
    return (
        shown.join(done, on=key, how="full", coalesce=True)
        .with_columns(pl.col(c).fill_null(0) for c in (*measure_columns(tasks),))
        .sort(key)
    )


def measure_columns(tasks: Sequence[TaskSpec]) -> tuple[str, ...]:
    """Name a tile's integer columns."""
    halves = (f"{t.name}_halves" for t in tasks if not t.is_binary)
    return ("impressions", *(f"{t.name}_count" for t in tasks), *halves)


def add_to_lifetime(lifetime: pl.DataFrame | None, day: pl.DataFrame, key: str) -> pl.DataFrame:
    """Give lifetime(D) = lifetime(D-1) + tile(D)."""
    stacked = day if lifetime is None else pl.concat([lifetime, day], how="vertical")
    sums = [c for c in day.columns if c not in (key, "last_feedback_at")]
    return (
        stacked.lazy()
        .group_by(key)
        .agg(pl.col(*sums).sum(), pl.col("last_feedback_at").max())
        .select(day.columns)
        .sort(key)
        .collect()
    )


def windowed(
    tiles: dict[date, pl.DataFrame],
    lifetime: pl.DataFrame,
    key: str,
    last_day: date,
    window_days: Sequence[int],
    measures: Sequence[str],
) -> pl.DataFrame:
    """Aggregate per key: one column per measure and window, e.g. `click_count_7`, plus `last_feedback_at`.

    A window of n days holds the tiles of last_day and the n - 1 days before.
    """
    result = lifetime.select(key, "last_feedback_at", *(pl.col(m).alias(f"{m}_{LIFETIME}") for m in measures))
    for days in window_days:
        inside = [t for d, t in tiles.items() if 0 <= (last_day - d).days < days]
        if not inside:
            result = result.with_columns(pl.lit(0, dtype=pl.Int64).alias(f"{m}_{days}") for m in measures)
            continue
        sums = pl.concat(inside).group_by(key).agg(pl.col(m).sum().alias(f"{m}_{days}") for m in measures)
        result = result.join(sums, on=key, how="left", maintain_order="left")
    return result.with_columns(pl.col(f"{m}_{days}").fill_null(0) for days in window_days for m in measures)


def group_windows(items: pl.DataFrame, group: str, columns: Sequence[str]) -> pl.DataFrame:
    """Add each item's group totals as `by_<group>__<column>`; an item without a group value gets nulls."""
    totals = (
        items.filter(pl.col(group).is_not_null())
        .group_by(group)
        .agg(pl.col(c).sum().alias(f"by_{group}__{c}") for c in columns)
    )
    return items.join(totals, on=group, how="left", maintain_order="left")
