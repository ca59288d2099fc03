"""Impressions + feedback + tasks -> label columns. A window still open gives null, never 0.

A reversal takes back what its impression got until then. One that names no impression takes back the latest
standing feedback of its user and item that names one: a shop's refunds know the order, and no list.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec

_KEY = (*IMPRESSION_KEY, "item_id")
"""Feedback of another user or item is not credited, even if it names the impression."""


def make_labels(
    impressions: pl.DataFrame, feedback: pl.DataFrame, tasks: Sequence[TaskSpec], as_of: datetime
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Label each impression for each task, as known at an instant.

    Args:
        impressions: needs impression_id, user_id, item_id, shown_at.
        feedback: all feedback received before `as_of` that may belong to these impressions.
        as_of: UTC; feedback received at or after it is not seen, windows ending after it are open.

    Returns: impression_id, user_id and one Float32 column `label_<task>` per task, in the order of
    impressions; and, per child task, how many impressions had the child's feedback without the parent's
    (those are labelled 0).
    """
    visible = feedback.filter(pl.col("received_at") < as_of, may_label(tasks))
    result = impressions.select("impression_id", "user_id", "item_id", "shown_at")
    for task in tasks:
        result = result.join(
            _credited(result, visible, task),
            on=IMPRESSION_KEY,
            how="left",
            maintain_order="left",
        )
        closed = pl.col("shown_at") + timedelta(seconds=task.window) <= as_of
        value = pl.col(task.label)
        known = value if task.space == "observed" else value.fill_null(0.0)
        result = result.with_columns(pl.when(closed).then(known).cast(pl.Float32).alias(task.label))
    contradictions: dict[str, int] = {}
    for task in tasks:
        if task.parent is not None:
            parent = pl.col(f"label_{task.parent}")
            without = result.select((pl.col(task.label) > parent).fill_null(value=False).sum()).item()
            contradictions[task.name] = int(without)
            result = result.with_columns(pl.col(task.label) * parent)
    return result.drop("item_id", "shown_at"), contradictions


def may_label(tasks: Sequence[TaskSpec]) -> pl.Expr:
    """Select the feedback that labels rest on: it names an impression, or is a reversal that names none."""
    reversals = [task.reversal for task in tasks if task.reversal is not None]
    return pl.col("impression_id").is_not_null() | pl.col("kind").is_in(reversals)


def _credited(impressions: pl.DataFrame, feedback: pl.DataFrame, task: TaskSpec) -> pl.DataFrame:
    """Give impression_id and the credited value of one task: 1.0, or the last value in the window."""
    window = timedelta(seconds=task.window)
    done = feedback.filter(pl.col("kind") == task.feedback, pl.col("impression_id").is_not_null())
    mine = done.join(impressions.select(*_KEY, "shown_at"), on=_KEY, how="inner")
    inside = mine.filter(pl.col("occurred_at").is_between(pl.col("shown_at"), pl.col("shown_at") + window))
    if task.reversal is not None:
        undone = _undone(done, feedback.filter(pl.col("kind") == task.reversal))
        inside = inside.join(undone, on=_KEY, how="left")
        # Feedback after its reversal counts again.
        inside = inside.filter(pl.col("undone_at").is_null() | (pl.col("occurred_at") > pl.col("undone_at")))
    if task.kind.label == "event":
        return inside.select(IMPRESSION_KEY).unique().with_columns(pl.lit(1.0).alias(task.label))
    valued = inside.filter(pl.col("value").is_not_null()).sort("occurred_at", "feedback_id")
    last = valued.group_by(IMPRESSION_KEY, maintain_order=True).last()
    return last.select(*IMPRESSION_KEY, pl.col("value").clip(task.low, task.high).alias(task.label))


def _undone(done: pl.DataFrame, reversals: pl.DataFrame) -> pl.DataFrame:
    """Give each impression's last reversal: its key and `undone_at`. Args: done names impressions."""
    nameless = pl.col("impression_id").is_null()
    named = reversals.filter(~nameless).group_by(_KEY).agg(undone_at=pl.col("occurred_at").max())
    standing = done.join(named, on=_KEY, how="left").filter(
        pl.col("undone_at").is_null() | (pl.col("occurred_at") > pl.col("undone_at"))
    )
    found = _latest_undone(standing, reversals.filter(nameless))
    return pl.concat([named, found]).group_by(_KEY).agg(pl.col("undone_at").max())


def _latest_undone(done: pl.DataFrame, reversals: pl.DataFrame) -> pl.DataFrame:
    """Give the impression whose feedback each reversal without one takes back, and `undone_at`.

    Per user and item: the latest that no other reversal has taken back, as brackets are matched. What is open
    at an instant is the feedback until then less the reversals that met some; a reversal closes the feedback
    that stands before it among those of its depth.
    """
    owner = ["user_id", "item_id"]
    columns = (*_KEY, "occurred_at", "feedback_id")
    step = pl.concat([done.select(*columns, step=1), reversals.select(*columns, step=-1)])
    # At one instant the feedback comes first: it may be taken back at once.
    step = step.sort("occurred_at", "step", "feedback_id", descending=[False, True, False])
    sums = pl.col("step").cum_sum()
    lowest = pl.min_horizontal(sums.cum_min(), 0)
    opened = step.with_columns(
        meets_none=(lowest < lowest.shift(1, fill_value=0)).over(owner), open=(sums - lowest).over(owner)
    ).filter(~pl.col("meets_none"))
    depth = pl.col("open") + (pl.col("step") < 0)
    last = opened.with_columns(depth=depth).with_columns(
        pl.col("impression_id").shift(1).over(*owner, "depth").alias("taken_back")
    )
    return last.filter(pl.col("step") < 0).select(
        pl.col("taken_back").alias("impression_id"), *owner, undone_at="occurred_at"
    )
