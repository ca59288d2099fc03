"""Paired differences of two systems on the same rows and the same users, as values that fit a report."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from recsys.metrics.effect import Effect
from recsys.metrics.inference import paired_bootstrap, paired_bootstrap_means
from recsys.tasks import TaskSpec

BINARY_METRICS = ("auc", "gauc", "log_loss", "normalised_entropy", "brier")
REGRESSION_METRICS = ("rmse", "mae")
TITLES = {
    "auc": "AUC",
    "gauc": "GAUC",
    "log_loss": "log loss",
    "normalised_entropy": "normalised entropy",
    "brier": "Brier",
    "ece": "ECE",
    "rmse": "RMSE",
    "mae": "MAE",
    "ndcg_at_10": "NDCG@10",
    "retrieval_ndcg_at_10": "NDCG@10 of retrieval's order",
    "recall_at_50": "recall@50",
    "recall_at_all": "recall of all candidates",
    "novelty_at_10": "novelty@10 (bits)",
    "diversity_at_10": "category diversity@10",
}
"""How metrics are printed."""
MIN_ROWS = 100
MIN_USERS = 20
MIN_POSITIVES = 20
"""Below these a segment's counts are shown and no difference."""


class Segment(BaseModel):
    """A part of the rows, with the primary metric of one head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    head: str
    rows: int
    users: int
    positives: int
    """Rows with label 1; for a regression head all labelled rows."""
    effect: Effect | None
    """None where there are too few rows to say anything."""


def primary_metric(task: TaskSpec) -> str:
    """Name the one metric that a verdict on a head rests on."""
    return "auc" if task.is_binary else "rmse"


def head_effects(
    task: TaskSpec, rows: pl.DataFrame, metrics: Sequence[str], *, replicates: int, level: float, seed: int
) -> list[Effect]:
    """Compare two systems on one head's labelled rows; none without labels.

    Args: rows: user_id, weight, the label, `prediction_<task>` of A and `b_prediction_<task>` of B.
    """
    known = rows.filter(pl.col(task.label).is_not_null())
    if known.is_empty():
        return []
    a, b = (known[f"{prefix}prediction_{task.name}"].to_numpy() for prefix in ("", "b_"))
    user = known["user_id"].rank("dense").cast(pl.Int64).to_numpy()
    return [
        paired_bootstrap(
            metric,
            known[task.label].to_numpy(),
            a,
            b,
            user,
            generator=np.random.default_rng(seed),
            weight=known["weight"].to_numpy(),
            replicates=replicates,
            level=level,
        )
        for metric in metrics
    ]


def user_effects(
    users: pl.DataFrame, metrics: Sequence[str], *, replicates: int, level: float, seed: int
) -> list[Effect]:
    """Compare two systems by one value per user, columns `<metric>` of A and `b_<metric>` of B."""
    found = []
    for metric in metrics:
        a, b = users[metric].to_numpy(), users[f"b_{metric}"].to_numpy()
        if not np.isnan(a + b).all():
            found.append(
                paired_bootstrap_means(
                    metric, a, b, generator=np.random.default_rng(seed), replicates=replicates, level=level
                )
            )
    return found


def segments(
    tasks: Sequence[TaskSpec], rows: pl.DataFrame, *, replicates: int, level: float, seed: int
) -> list[Segment]:
    """Compare on new, light and heavy users, and on items never shown before."""
    parts = _parts(rows)
    found = []
    for task in tasks:
        for name, mask in parts.items():
            part = rows.filter(mask, pl.col(task.label).is_not_null())
            positive = (pl.col(task.label) > 0.5) if task.is_binary else pl.lit(value=True)
            positives, users = part.filter(positive).height, part["user_id"].n_unique()
            enough = part.height >= MIN_ROWS and users >= MIN_USERS and positives >= MIN_POSITIVES
            effects = (
                head_effects(
                    task, part, [primary_metric(task)], replicates=replicates, level=level, seed=seed
                )
                if enough
                else []
            )
            found.append(
                Segment(
                    name=name,
                    head=task.name,
                    rows=part.height,
                    users=users,
                    positives=positives,
                    effect=effects[0] if effects else None,
                )
            )
    return found


def _parts(rows: pl.DataFrame) -> dict[str, pl.Expr]:
    """Split users by how often they had been shown something; the border is the scored users' median."""
    past = (
        rows.group_by("user_id").agg(pl.col("user_past").min()).filter(pl.col("user_past") > 0)["user_past"]
    )
    middle = past.median()
    border = int(middle) if isinstance(middle, int | float) else 1
    return {
        "new users (never shown anything)": pl.col("user_past") == 0,
        f"light users (1 to {border} impressions)": pl.col("user_past").is_between(1, border),
        f"heavy users (over {border} impressions)": pl.col("user_past") > border,
        "new items (never shown before)": pl.col("item_past") == 0,
    }
