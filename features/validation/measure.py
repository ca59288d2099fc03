"""A day's cleaned tables -> its profile: counts and histograms, in one pass per column."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from features.labels import make_labels
from features.validation.profile import ColumnProfile, DayProfile, IdProfile, Rate, TableProfile
from features.validation.tables import DayTables
from recsys.schema import ATTRIBUTE_PREFIX, CONTEXT_PREFIX, PARTITION_INSTANT
from recsys.tasks import TaskSpec

BINS_PER_DECADE = 16
"""Half stars from 1 to 5 all fall into different bins."""
TOP_VALUES = 50
SKETCH_SIZE = 256
_FIXED = {
    "impressions": ("position", "propensity", "propensity_kind", "explored", "sampled", "sampling_rate"),
    "feedback": ("kind", "impression_id"),
    "users": (),
    "items": ("category", "price"),
}
_ONLY_NULLS = {"impression_id", "title", "description"}
_TIME_OF_DAY = pl.col("shown_at").dt.epoch("ms") % 86_400_000
_FREE = (CONTEXT_PREFIX, ATTRIBUTE_PREFIX, "user.", "item.")


def profile_day(
    tables: DayTables, labels: dict[str, Rate], tasks: Sequence[TaskSpec], zone: str
) -> DayProfile:
    """Measure one day.

    Args: labels: what became known with this day (`matured_labels`); zone: the log's time zone.
    """
    impressions, feedback = tables.good["impressions"], tables.good["feedback"]
    received = dict(feedback.group_by("kind").len().sort("kind").iter_rows())
    hours = _users_by_hour(tables, zone)
    shown = impressions.filter(~pl.col("sampled"))  # what is drawn differs on a copied day, too
    return DayProfile(
        day=tables.day,
        requests=impressions["request_id"].n_unique(),
        hours=hours,
        tables={name: _table(name, tables, tasks) for name in tables.good},
        ids={key: _ids(impressions, key) for key in ("user_id", "item_id")},
        received=received,
        outside={
            t.feedback: feedback.filter(outside_range(t)).height for t in tasks if t.kind.label == "value"
        },
        labels=labels,
        sketch=_sketch(shown),
        same_instant=_same_instant(shown),
    )  # fmt: skip


def matured_labels(
    impressions: pl.DataFrame, feedback: pl.DataFrame, tasks: Sequence[TaskSpec], as_of: datetime
) -> dict[str, dict[str, int]]:
    """Count, per task, the labels known at an instant of the impressions whose windows have closed.

    Args: impressions of one period; feedback received from that period on.
    """
    found: dict[str, dict[str, int]] = {}
    labels, _ = make_labels(impressions, feedback, tasks, as_of)
    for task in tasks:
        closes = pl.col("shown_at") + timedelta(seconds=task.window)
        known = labels.filter(impressions.select(closes <= as_of).to_series())[task.label]
        labelled = (known > 0).sum() if task.kind.label == "event" else known.len() - known.null_count()
        found[task.name] = {"labelled": int(labelled), "rows": known.len()}
    return found


def outside_range(task: TaskSpec) -> pl.Expr:
    """Tell feedback of a regression task whose value lies beyond the range that the config declares."""
    return (pl.col("kind") == task.feedback) & ~pl.col("value").is_between(task.low, task.high)


def bin_of(column: str) -> pl.Expr:
    """Give a number's fixed bin: the sign, and sixteenths of a decade of the size; 0 is a bin of its own."""
    value = pl.col(column).cast(pl.Float64)
    size = (value.abs().log10() * BINS_PER_DECADE).floor().clip(-300, 300).cast(pl.Int32) + 301
    return pl.when(value == 0).then(0).otherwise(size * value.sign().cast(pl.Int32))


def _users_by_hour(tables: DayTables, zone: str) -> tuple[int, ...]:
    """Count users by hour: the rows of one basket come together, and drawn negatives with their positives."""
    shown = ~pl.col("sampled").fill_null(value=False)
    frames = [tables.good["impressions"].filter(shown).select("user_id", "hour")]
    bad = tables.quarantine["impressions"]
    if bad.height:
        misfiled = bad.filter(shown & (pl.col("quarantine_reason") == "outside_partition"))
        local = pl.col("shown_at").dt.convert_time_zone(zone).dt.hour().alias("hour")
        frames.append(misfiled.select("user_id", local))
    counted = pl.concat(frames).group_by("hour").agg(pl.col("user_id").n_unique())
    by_hour = dict(counted.iter_rows())
    return tuple(by_hour.get(hour, 0) for hour in range(24))


def _table(name: str, tables: DayTables, tasks: Sequence[TaskSpec]) -> TableProfile:
    frame, bad = tables.good[name], tables.quarantine[name]
    instant = PARTITION_INSTANT.get(name)
    last: Any = frame[instant].max() if instant and frame.height else None
    return TableProfile(
        rows=frame.height,
        quarantine=dict(bad.group_by("quarantine_reason").len().sort("len").iter_rows())
        if bad.height
        else {},
        repeats=int(frame["is_repeat"].sum()) if "is_repeat" in frame.columns else 0,
        gap_hours=None if last is None else (tables.as_of - last).total_seconds() / 3600,
        columns=_columns(name, frame, tasks),
    )


def _columns(name: str, frame: pl.DataFrame, tasks: Sequence[TaskSpec]) -> dict[str, ColumnProfile]:
    owners = ("user_id", "item_id") if name in ("impressions", "feedback") else ()
    worth = {key: _effective(frame, key) for key in owners}
    found: dict[str, ColumnProfile] = {}
    for column in frame.columns:
        if column in (*_FIXED[name], *_ONLY_NULLS) or column.startswith(_FREE):
            effective = worth.get("item_id" if column.startswith("item.") else "user_id", float(frame.height))
            found[column] = profile_column(frame[column], effective)
    if name == "feedback":
        for kind in sorted({t.feedback for t in tasks}):
            mine = frame.filter(pl.col("kind") == kind)
            # A price follows from the item: sixty purchases of five items are five draws of it.
            draws = min(_effective(mine, "user_id"), _effective(mine, "item_id"))
            found[f"value[{kind}]"] = profile_column(mine["value"], draws)
    return found


def profile_column(values: pl.Series, effective: float) -> ColumnProfile:
    """Measure one column: numbers in fixed bins, text and lists of text by their most frequent values."""
    rows, nulls = values.len(), values.null_count()
    present = values.drop_nulls()
    if values.name in _ONLY_NULLS or present.is_empty():
        return ColumnProfile(rows=rows, nulls=nulls, effective=effective)
    if values.dtype.is_numeric():
        bins = present.to_frame("value").group_by(bin_of("value").alias("bin")).len().sort("bin")
        low, high = present.min(), present.max()
        return ColumnProfile(
            rows=rows, nulls=nulls, effective=effective, bins=dict(bins.iter_rows()), values=rows - nulls,
            low=float(low), high=float(high),  # type: ignore[arg-type]
        )  # fmt: skip
    is_list = isinstance(values.dtype, pl.List)
    if is_list:
        present = present.explode(empty_as_null=False, keep_nulls=False)
    counts = present.cast(pl.String).rename("value").value_counts()
    top = counts.sort("count", "value", descending=[True, False]).head(TOP_VALUES)
    return ColumnProfile(
        rows=rows, nulls=nulls, effective=effective, categories=dict(top.iter_rows()), values=present.len(),
        is_list=is_list,
    )  # fmt: skip


def _effective(frame: pl.DataFrame, key: str) -> float:
    """Give Kish's effective number of independent draws, when one owner's rows say one thing: (Σn)²/Σn²."""
    sizes = frame.group_by(key).len()["len"].to_numpy().astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def _ids(impressions: pl.DataFrame, key: str) -> IdProfile:
    counts = impressions.group_by(key).agg(pl.len(), pl.col(f"new_{key}").first())
    if counts.is_empty():
        return IdProfile(distinct=0)
    top = counts.sort("len", key, descending=[True, False]).row(0)
    return IdProfile(distinct=counts.height, new=int(counts[f"new_{key}"].sum()), top=top[0], top_rows=top[1])


def _sketch(impressions: pl.DataFrame) -> tuple[int, ...]:
    """Give the smallest hashes of what was shown to whom at which time of day (bottom-k sketch).

    Source: Broder, "On the resemblance and containment of documents", 1997.
    """
    hashes = impressions.select(
        pl.struct("user_id", "item_id", "position", _TIME_OF_DAY).hash(seed=0).alias("hash")
    )
    return tuple(hashes["hash"].unique().bottom_k(SKETCH_SIZE).sort().to_list())


def _same_instant(impressions: pl.DataFrame) -> float:
    users = impressions.select("user_id", time=_TIME_OF_DAY).unique().group_by("time").len()["len"]
    rows = int(users.sum())
    return float((users * (users - 1)).sum()) / (rows * (rows - 1)) if rows > 1 else 0.0
