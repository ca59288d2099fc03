"""Impressions + feedback + tasks -> label columns. A window still open gives null, never 0."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from recsys.tasks import TaskSpec


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
    visible = feedback.filter(pl.col("received_at") < as_of, pl.col("impression_id").is_not_null())
    result = impressions.select("impression_id", "user_id", "item_id", "shown_at")
    for task in tasks:
        result = result.join(
            _credited(result, visible, task),
            on=["impression_id", "user_id"],
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


def _credited(impressions: pl.DataFrame, feedback: pl.DataFrame, task: TaskSpec) -> pl.DataFrame:
    """Give impression_id and the credited value of one task: 1.0, or the last value in the window."""
    window = timedelta(seconds=task.window)
    # Feedback of another user or item is not credited, even if it names the impression.
    key = ["impression_id", "user_id", "item_id"]
    mine = feedback.filter(pl.col("kind") == task.feedback).join(
        impressions.select(*key, "shown_at"), on=key, how="inner"
    )
    inside = mine.filter(pl.col("occurred_at").is_between(pl.col("shown_at"), pl.col("shown_at") + window))
    if task.reversal is not None:
        undone = feedback.filter(pl.col("kind") == task.reversal).group_by("impression_id", "user_id")
        inside = inside.join(
            undone.agg(undone_at=pl.col("occurred_at").max()), on=["impression_id", "user_id"], how="left"
        )
        # Feedback after its reversal counts again.
        inside = inside.filter(pl.col("undone_at").is_null() | (pl.col("occurred_at") > pl.col("undone_at")))
    if task.kind.label == "event":
        return inside.select("impression_id", "user_id").unique().with_columns(pl.lit(1.0).alias(task.label))
    valued = inside.filter(pl.col("value").is_not_null()).sort("occurred_at", "feedback_id")
    last = valued.group_by("impression_id", "user_id", maintain_order=True).last()
    return last.select(
        "impression_id", "user_id", pl.col("value").clip(task.low, task.high).alias(task.label)
    )
