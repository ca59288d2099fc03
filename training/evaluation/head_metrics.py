"""Rows of labels and predictions -> the figures of one head: every row metric of the table."""

import math

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from recsys.metrics import pointwise
from recsys.metrics.table import row_metrics
from recsys.tasks import TaskSpec
from training.evaluation.head_rows import HeadRows


class Reliability(BaseModel):
    """One bin of a reliability plot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int
    mean_prediction: float
    mean_label: float
    standard_error: float


class HeadMetrics(BaseModel):
    """Figures of one head's predictions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: dict[str, float | None]
    """Metric of `recsys.metrics.table` -> figure; None where not defined (labels of one class), or where the
    metric needs more than an order and the predictions are no more."""
    rows: int
    users: int = 0
    lists: int = 0
    """Lists with a pair of labels to compare: those that the metrics inside lists stand on."""
    lists_left_out: int = 0
    """Lists of two rows or more whose labels are all alike."""
    mean_label: float | None = None
    mean_prediction: float | None = None
    reliability: tuple[Reliability, ...] = ()
    """Of probabilities; empty for a head that predicts a value."""


def head_metrics(
    task: TaskSpec, rows: pl.DataFrame, prediction: str, *, probability: bool = True
) -> HeadMetrics:
    """Measure one column of predictions where the task's label is known; a row counts `weight` times.

    Args: rows: user_id, weight, list_group, examination, the label and the prediction columns; probability:
    False for scores of a binary task that only order the rows, such as a count.
    """
    metrics = row_metrics(probability=task.kind.probability)
    known = HeadRows.of(task, rows, prediction)
    if not known.label.size:
        return HeadMetrics(values=dict.fromkeys(metrics), rows=0)
    only_order = task.kind.probability and not probability
    found = {
        name: None if only_order and metric.reads != "order" else _defined(known.value(metric, prediction))
        for name, metric in metrics.items()
    }
    values, label, weight = known.frame[prediction].to_numpy(), known.label, known.weight
    num_lists, left_out = known.count_lists()
    return HeadMetrics(
        values=found,
        rows=label.size,
        users=int(known.user.max()) + 1,
        lists=num_lists,
        lists_left_out=left_out,
        mean_label=float(np.average(label, weights=weight)),
        mean_prediction=None if only_order else float(np.average(values, weights=weight)),
        reliability=_reliability(label, values, weight) if task.kind.probability and probability else (),
    )


def _reliability(label: np.ndarray, values: np.ndarray, weight: np.ndarray) -> tuple[Reliability, ...]:
    return tuple(
        Reliability(
            count=b.count,
            mean_prediction=b.mean_prediction,
            mean_label=b.mean_label,
            standard_error=b.standard_error,
        )
        for b in pointwise.reliability_bins(label, values, weight)
    )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
