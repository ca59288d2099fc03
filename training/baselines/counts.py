"""Counts, rates and positives before a period, for the simple baselines."""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from features.definitions import LIFETIME
from features.labels import make_labels
from recsys.snapshot import DaySnapshot
from recsys.tasks import TaskSpec

RECENT_DAYS = 7
SHRINKAGE = 20.0
"""Pseudo-observations of the overall rate or mean that are added to each item's own."""
_RATED = ("impression_id", "user_id", "item_id", "shown_at", "sampling_rate")


def item_counts(chain: Sequence[DaySnapshot], i: int) -> pl.DataFrame:
    """Count each item's life and last 7 days (`recent_…`) before period i: integers."""
    measures = [c for c in chain[0].table("item_tile").columns if c not in ("item_id", "last_feedback_at")]
    ever = [pl.col("item_id"), *(pl.col(f"{m}_{LIFETIME}").alias(m) for m in measures)]
    if i == 0:
        return chain[0].table("items").select(*ever).clear()
    life = chain[i - 1].table("items").select(*ever)
    tiles = [s.table("item_tile") for s in chain[:i] if (chain[i - 1].day - s.day).days < RECENT_DAYS]
    counts = [c for c in life.columns if c != "item_id"]
    recent = pl.concat(tiles).group_by("item_id").agg(pl.col(c).sum().alias(f"recent_{c}") for c in counts)
    return life.join(recent, on="item_id", how="left").fill_null(0)


def item_rates(
    chain: Sequence[DaySnapshot], i: int, tasks: Sequence[TaskSpec], as_of: datetime
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Give items' shrunk mean labels `rate_<task>` over the periods before i, and the overall means.

    Labels, not counts: organic feedback belongs to no impression. Args: as_of: the end of period i - 1.
    """
    binary = [task for task in tasks if task.is_binary]
    examples = pl.concat([s.table("examples").select(_RATED) for s in chain[:i]])
    feedback = pl.concat([s.table("feedback") for s in chain[:i]], how="diagonal_relaxed")
    labels, _ = make_labels(examples, feedback, binary, as_of)
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


def positives(chain: Sequence[DaySnapshot], i: int, task: TaskSpec) -> pl.DataFrame:
    """List the (user, item) pairs with the task's feedback before period i."""
    kind = pl.col("kind") == task.feedback
    return pl.concat([s.table("feedback").filter(kind).select("user_id", "item_id") for s in chain[:i]])


def share(part: float, whole: float, otherwise: float) -> float:
    """Divide, with an answer for an empty whole."""
    return float(part / whole) if whole else otherwise


def _weighted_mean(rows: pl.DataFrame, label: str) -> float:
    known = rows.filter(pl.col(label).is_not_null())
    return share(float((known[label] * known["weight"]).sum()), float(known["weight"].sum()), 0.5)
