"""One day's events -> daily tiles of integers; tiles -> windowed aggregates by addition.

Counts are counts, and values are added up as whole steps (`[[task]] step`): integers add and subtract
exactly, in any order. So lifetime(D) = lifetime(D-1) + tile(D), and window(D) = window(D-1) + tile(D) - tiles
that left the window: a night reads its own tile and one old tile per window, however long the log is.

Rates are made in the encoder only, of the feedback that names its impression (`<task>_shown`): organic
feedback is counted, but is no part of these rates. It has rates of its own where a kind of feedback is named
as their base ([features] organic_base). Events are filed by when they were received (impressions:
shown), never by what they are later credited to: a tile never changes after its day. Feedback that is taken
back counts against the day of its reversal.
"""

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import polars as pl

from features.definitions import LIFETIME, ORGANIC_BASE, organic_tasks
from recsys.tasks import TaskSpec

LAST = "last_feedback_at"


def tile(
    impressions: pl.DataFrame,
    feedback: pl.DataFrame,
    key: Sequence[str],
    tasks: Sequence[TaskSpec],
    base: str = "",
) -> pl.DataFrame:
    """Count one day by a key: impressions, feedback per task net of reversals, steps, last feedback.

    Of a rate, feedback that names an impression is also counted on its own; of a mean, values are added up.
    Where organic feedback has a base, such as views, it and each rate's organic feedback are counted, too.
    Sampled negatives were never shown to anybody: they are not counted. Rows without a key are not either.
    """
    shown = (
        impressions.lazy().filter(~pl.col("sampled")).group_by(key).agg(impressions=pl.len().cast(pl.Int64))
    )
    measures: list[pl.Expr] = []
    named = pl.col("impression_id").is_not_null()
    # A session's copy names no impression, and may be of one all the same.
    by_itself = ~named & pl.col("merged_from").is_null()
    organic = organic_tasks(tasks, base)
    for task in tasks:
        mine = pl.col("kind") == task.feedback
        net = mine.cast(pl.Int64)
        if task.reversal is not None:
            net = net - (pl.col("kind") == task.reversal).cast(pl.Int64)
        measures.append(net.sum().alias(f"{task.name}_count"))
        if task.kind.aggregate == "rate":
            measures.append((net * named).sum().alias(f"{task.name}_shown"))
            if task in organic:
                measures.append((net * by_itself).sum().alias(f"{task.name}_organic"))
        else:
            steps = (pl.col("value").filter(mine) / task.step).round().sum().cast(pl.Int64)
            measures.append(steps.alias(f"{task.name}_steps"))
    if base:
        measures.append(((pl.col("kind") == base) & by_itself).sum().cast(pl.Int64).alias(ORGANIC_BASE))
    if "user_id" not in key:  # the session's own rows already count for the item
        feedback = feedback.filter(pl.col("merged_from").is_null())
    done = feedback.lazy().group_by(key).agg(*measures, pl.col("received_at").max().alias(LAST))
    return (
        shown.join(done, on=key, how="full", coalesce=True)
        .filter(pl.all_horizontal(pl.col(k).is_not_null() for k in key))
        .with_columns(pl.col(c).fill_null(0) for c in measure_columns(tasks, base))
        .select(*key, *measure_columns(tasks, base), LAST)
        .sort(key)
        .collect()
    )


def measure_columns(tasks: Sequence[TaskSpec], base: str = "") -> tuple[str, ...]:
    """Name a tile's integer columns. Args: base: the kind that organic feedback is a share of, or none."""
    shown = (f"{t.name}_shown" for t in tasks if t.kind.aggregate == "rate")
    steps = (f"{t.name}_steps" for t in tasks if t.kind.aggregate == "mean")
    organic = (*(f"{t.name}_organic" for t in organic_tasks(tasks, base)), ORGANIC_BASE) if base else ()
    return ("impressions", *(f"{t.name}_count" for t in tasks), *shown, *steps, *organic)


def window_columns(window_days: Sequence[int], measures: Sequence[str]) -> tuple[str, ...]:
    """Name the aggregates' integer columns: `click_count_7`, …, `click_count_life`."""
    return tuple(f"{m}_{w}" for w in (*window_days, LIFETIME) for m in measures)


def add_tiles(tiles: Sequence[pl.DataFrame], key: Sequence[str]) -> pl.DataFrame:
    """Add tiles of one period, or of several parts of it, up to one."""
    stacked = pl.concat(tiles, how="vertical").lazy()
    sums = [c for c in tiles[0].columns if c not in (*key, LAST)]
    return (
        stacked.group_by(key)
        .agg(pl.col(*sums).sum(), pl.col(LAST).max())
        .select(tiles[0].columns)
        .sort(key)
        .collect()
    )


def roll_windows(
    previous: pl.DataFrame | None,
    today: pl.DataFrame,
    leaving: Mapping[int, Sequence[pl.DataFrame]],
    key: Sequence[str],
    measures: Sequence[str],
) -> pl.DataFrame:
    """Move all windows of a table of aggregates on to a new day.

    Args:
        previous: the aggregates of the period before (key, `<measure>_<window>`, last_feedback_at).
        today: the new period's tile.
        leaving: window in days -> tiles that were inside it the period before and are not any more.

    Returns: one row per key ever seen, sorted by the key's text.
    """
    columns = window_columns(tuple(leaving), measures)
    change = _change(today, leaving, key, measures).select(*key, *columns, LAST)
    if previous is None:
        return change
    known = previous.select(*key, *columns, LAST)
    at = (
        known.select(key)
        .with_row_index("row")
        .join(change.select(key).with_row_index("change"), on=key, how="inner")
        .select("row", "change")
    )
    rows, changes = at["row"].to_numpy(), at["change"].to_numpy()
    moved = known.with_columns(
        *(_added(known[c], change[c], rows, changes) for c in columns),
        known[LAST].scatter(at["row"], _later(known[LAST][rows], change[LAST][changes])),
    )
    return _merge(moved, change.filter(~_contained(change.height, changes)), key)


def in_windows(rolled: pl.DataFrame, window_days: Sequence[int], measures: Sequence[str]) -> pl.DataFrame:
    """Keep the rows that count anything in some window: pairs of a user and an item are too many to keep all.

    A pair that comes back starts anew: its windows are right, its lifetime is the time since then.
    """
    columns = [c for c in window_columns(window_days, measures) if not c.endswith(f"_{LIFETIME}")]
    return rolled.filter(pl.any_horizontal(pl.col(columns) != 0))


def _change(
    today: pl.DataFrame,
    leaving: Mapping[int, Sequence[pl.DataFrame]],
    key: Sequence[str],
    measures: Sequence[str],
) -> pl.DataFrame:
    """Sum up what a new day adds to the windows and what leaves them; few keys, sorted."""
    parts = [
        today.lazy().select(
            *key, *(pl.col(m).alias(f"{m}_{w}") for w in (*leaving, LIFETIME) for m in measures), LAST
        )
    ]
    parts += [
        gone.lazy().select(*key, *((-pl.col(m)).alias(f"{m}_{days}") for m in measures))
        for days, tiles in leaving.items()
        for gone in tiles
    ]
    sums = window_columns(tuple(leaving), measures)
    return (
        pl.concat(parts, how="diagonal")
        .group_by(key)
        .agg(pl.col(*sums).sum(), pl.col(LAST).max())
        .sort(_sort_key(key))
        .collect()
    )


def _added(known: pl.Series, change: pl.Series, rows: np.ndarray, changes: np.ndarray) -> pl.Series:
    """Add integers, none of them null, at some rows, each row at most once."""
    sums = known.to_numpy().copy()  # polars takes three queries for it, of each of the dozens of columns
    sums[rows] += change.to_numpy()[changes]
    return pl.Series(known.name, sums)


def _later(one: pl.Series, other: pl.Series) -> pl.Series:
    return pl.select(pl.max_horizontal(one, other)).to_series()


def _contained(size: int, positions: np.ndarray) -> pl.Series:
    mask = np.zeros(size, bool)
    mask[positions] = True
    return pl.Series(mask)


def _merge(known: pl.DataFrame, new: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Merge new rows into sorted ones: one pass over the keys; sorting all would compare them again."""
    if new.is_empty():
        return known
    both = pl.concat([known, new])
    keys = both.select(key=_sort_key(key)).with_row_index("row")
    order = keys.head(known.height).merge_sorted(keys.tail(new.height), key="key")["row"]
    return both[order]


def _sort_key(key: Sequence[str]) -> pl.Expr:
    """Give the one text that rows are sorted by, numbers too: what is merged must be in one order."""
    return pl.concat_str(key, separator="\0")


def leaving_days(days: Sequence[date], day: date, window_days: Sequence[int]) -> dict[int, tuple[date, ...]]:
    """Tell, per window, which earlier periods' tiles leave it on this day.

    A window of n days holds the tiles of the day and the n - 1 days before. Args: days: the earlier periods'.
    """
    before = days[-1] if days else day
    return {w: tuple(d for d in days if (before - d).days < w <= (day - d).days) for w in window_days}


def group_windows(items: pl.DataFrame, group: str, columns: Sequence[str]) -> pl.DataFrame:
    """Add each item's group totals as `by_<group>__<column>`; an item without a group value gets nulls.

    Integers are added, hours since the last feedback are those of the group's latest.
    """
    recency = "hours_since_feedback"
    totals = (
        items.filter(pl.col(group).is_not_null())
        .group_by(group)
        .agg(
            *(pl.col(c).sum().alias(f"by_{group}__{c}") for c in columns),
            pl.col(recency).min().alias(f"by_{group}__{recency}"),
        )
    )
    return items.join(totals, on=group, how="left", maintain_order="left")
