"""Rows of labels and predictions -> the figures of one head. Binary and regression heads have their own."""

import math

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from recsys.metrics import pointwise
from recsys.tasks import TaskSpec


class Reliability(BaseModel):
    """One bin of a reliability plot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    mean_prediction: float
    mean_label: float
    standard_error: float


class BinaryMetrics(BaseModel):
    """Figures of a probability; None where not defined (one class only) or not a probability."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    auc: float | None = None
    gauc: float | None = None
    log_loss: float | None = None
    ece: float | None = None
    rows: int
    normalised_entropy: float | None = None
    brier: float | None = None
    rate: float | None = None
    """Mean label."""
    mean_prediction: float | None = None
    gauc_users: int = 0
    """Users with both classes: those that GAUC stands on."""
    users: int = 0
    reliability: tuple[Reliability, ...] = ()


class RegressionMetrics(BaseModel):
    """Figures of a value in the label's unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rmse: float | None = None
    mae: float | None = None
    rows: int
    mean_label: float | None = None
    mean_prediction: float | None = None
    users: int = 0


HeadMetrics = BinaryMetrics | RegressionMetrics


def head_metrics(
    task: TaskSpec, rows: pl.DataFrame, prediction: str, *, probability: bool = True
) -> HeadMetrics:
    """Measure one column of predictions where the task's label is known; a row counts `weight` times.

    Args: rows: user_id, weight, the label and the prediction columns; probability: False for scores that only
    order the rows, such as a count: AUC and GAUC alone are measured.
    """
    known = rows.filter(pl.col(task.label).is_not_null(), pl.col(prediction).is_not_null())
    if known.is_empty():
        return BinaryMetrics(rows=0) if task.is_binary else RegressionMetrics(rows=0)
    label, values = known[task.label].to_numpy(), known[prediction].to_numpy()
    weight = known["weight"].to_numpy()
    users = known["user_id"].n_unique()
    if not task.is_binary:
        return RegressionMetrics(
            rmse=pointwise.rmse(label, values, weight),
            mae=pointwise.mae(label, values, weight),
            rows=known.height,
            mean_label=float(np.average(label, weights=weight)),
            mean_prediction=float(np.average(values, weights=weight)),
            users=users,
        )
    ranked = _order_metrics(known, label, values, weight)
    return BinaryMetrics(
        **ranked, users=users, **(_probability_metrics(label, values, weight) if probability else {})
    )


def _order_metrics(
    known: pl.DataFrame, label: np.ndarray, values: np.ndarray, weight: np.ndarray
) -> dict[str, float]:
    user = known["user_id"].rank("dense").to_numpy().astype(np.int64)
    grouped = pointwise.gauc(label, values, user, weight)
    found = {"auc": pointwise.auc(label, values, weight), "gauc": grouped.value}
    defined = {name: value for name, value in found.items() if not math.isnan(value)}
    rate = float(np.average(label, weights=weight))
    return {**defined, "rows": known.height, "gauc_users": grouped.num_users, "rate": rate}


def _probability_metrics(label: np.ndarray, values: np.ndarray, weight: np.ndarray) -> dict[str, object]:
    entropy = pointwise.normalised_entropy(label, values, weight)
    bins = pointwise.reliability_bins(label, values, weight)
    return {
        "log_loss": pointwise.log_loss(label, values, weight),
        "ece": pointwise.ece(label, values, weight),
        "brier": pointwise.brier(label, values, weight),
        "normalised_entropy": None if math.isnan(entropy) else entropy,
        "mean_prediction": float(np.average(values, weights=weight)),
        "reliability": tuple(
            Reliability(
                count=b.count,
                mean_prediction=b.mean_prediction,
                mean_label=b.mean_label,
                standard_error=b.standard_error,
            )
            for b in bins
        ),
    }
