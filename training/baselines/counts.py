"""Counts, rates and positives before a period, for the simple baselines."""

from collections.abc import Sequence

import polars as pl

from features.days import Days
from features.definitions import LIFETIME
from features.labels import make_labels
from recsys.tasks import TaskSpec

RECENT_DAYS = 7
SHRINKAGE = 20.0
"""Pseudo-observations of the overall rate or mean that are added to each item's own."""
_RATED = ("impression_id", "user_id", "item_id", "shown_at", "sampling_rate")


def item_counts(days: Days, i: int) -> pl.DataFrame:
    """Count each item's life and last 7 days (`recent_…`) before day i: integers."""
    measures = [c for c in days[0].table("item_tile").columns if c not in ("item_id", "last_feedback_at")]
    ever = [pl.col("item_id"), *(pl.col(f"{m}_{LIFETIME}").alias(m) for m in measures)]
    previous = days.before(i)
    if previous is None:
        return days[0].table("items").select(*ever).clear()
    life = previous.table("items").select(*ever)
    tiles = [s.table("item_tile") for s in days[:i] if (previous.day - s.day).days < RECENT_DAYS]
    counts = [c for c in life.columns if c != "item_id"]
    recent = pl.concat(tiles).group_by("item_id").agg(pl.col(c).sum().alias(f"recent_{c}") for c in counts)
    return life.join(recent, on="item_id", how="left").fill_null(0)


def item_rates(days: Days, i: int, tasks: Sequence[TaskSpec]) -> tuple[pl.DataFrame, dict[str, float]]:
    """Give items' shrunk mean labels `rate_<task>` over the days before i, and the overall means.

    Labels, not counts: organic feedback belongs to no impression. They are those known when day i began.
    """
    binary = [task for task in tasks if task.kind.aggregate == "rate"]
    examples = pl.concat([s.table("examples").select(_RATED) for s in days[:i]])
    feedback = pl.concat([s.table("feedback") for s in days[:i]], how="diagonal_relaxed")
    labels, _ = make_labels(examples, feedback, binary, days.end_of(i - 1))
    rows = examples.with_columns(weight=1 / pl.col("sampling_rate")).hstack(
        labels.drop("impression_id", "user_id")
    )
    priors = {t.name: _weighted_mean(rows, t.label) for t in binary}
    sums = rows.group_by("item_id").agg(
        ((pl.col(t.label) * pl.col("weight")).sum() + SHRINKAGE * priors[t.name])
        / (pl.col("weight").filter(pl.col(t.label).is_not_null()).sum() + SHRINKAGE)
        for t in binary
    )
    return sums.rename({t.label: f"rate_{t.name}" for t in binary}), priors


def positives(days: Days, i: int, task: TaskSpec) -> pl.DataFrame:
    """List the (user, item) pairs with the task's feedback before day i."""
    kind = pl.col("kind") == task.feedback
    return pl.concat([s.table("feedback").filter(kind).select("user_id", "item_id") for s in days[:i]])


def share(part: float, whole: float, otherwise: float) -> float:
    """Divide, with an answer for an empty whole."""
    return float(part / whole) if whole else otherwise


def _weighted_mean(rows: pl.DataFrame, label: str) -> float:
    known = rows.filter(pl.col(label).is_not_null())
    return share(float((known[label] * known["weight"]).sum()), float(known["weight"].sum()), 0.5)
