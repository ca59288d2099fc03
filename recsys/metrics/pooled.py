"""Metrics over rows as functions of how often each user is drawn, so that a bootstrap sorts and sums once.

A draw is a count per user [U]. Means of row losses need one sum per user; AUC needs rows sorted once and a
running sum for each draw. Not here: ECE, whose absolute values make a draw look worse than its sample.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.errors import ConfigError
from recsys.metrics.columns import (
    IntVector,
    Rows,
    Vector,
    checked,
    checked_binary,
    checked_probability,
    group_sums,
)
from recsys.metrics.losses import entropy, row_absolute_error, row_log_loss, row_squared_error
from recsys.metrics.order import class_weights, order_by_prediction, segment_aucs, user_aucs

Statistic = Callable[[Vector], float]
"""How often each user is drawn [U] -> the metric's value on that draw, NaN when not defined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledMetric:
    """Say how a metric over rows is checked, turned into a Statistic, and read."""

    check: Callable[[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike | None], Rows]
    statistic: Callable[[Rows, IntVector], Statistic]
    higher_is_better: bool


def pooled_metric(metric: str) -> PooledMetric:
    """Look a pooled metric up by name.

    Raises: ConfigError naming the known ones.
    """
    if metric not in POOLED_METRICS:
        raise ConfigError(
            f"metric {metric!r} is not pooled over rows; choose one of {sorted(POOLED_METRICS)}"
        )
    return POOLED_METRICS[metric]


def ratio_of_sums(total_U: Vector, weight_U: Vector) -> Statistic:
    """Return the statistic sum(drawn * total) / sum(drawn * weight), NaN when the draw weighs nothing."""

    def statistic(drawn: Vector) -> float:
        weight = float(drawn @ weight_U)
        return float(drawn @ total_U) / weight if weight > 0 else float("nan")

    return statistic


def _auc(rows: Rows, user: IntVector) -> Statistic:
    """Sort once; each draw scales the class weights and reads the AUC off the fixed order."""
    order = order_by_prediction(rows.prediction)
    positive, negative = class_weights(rows, order)
    user_sorted = user[order.rows]

    def statistic(drawn: Vector) -> float:
        times = drawn[user_sorted]
        return float(segment_aucs(order, times * positive, times * negative)[0])

    return statistic


def _gauc(rows: Rows, user: IntVector) -> Statistic:
    """Average per-user AUCs, which no draw changes, over the drawn users with both classes."""
    auc_U, weight_U = user_aucs(rows, user)
    used = ~np.isnan(auc_U)
    return ratio_of_sums(np.where(used, auc_U * weight_U, 0.0), np.where(used, weight_U, 0.0))


def _mean_of(row_loss: Callable[[Rows], Vector]) -> Callable[[Rows, IntVector], Statistic]:
    """Build the statistic of a weighted mean of row losses from each user's mean and weight."""

    def build(rows: Rows, user: IntVector) -> Statistic:
        weight_U = group_sums(rows.weight, user)
        loss_U = group_sums(rows.weight * row_loss(rows), user)
        return ratio_of_sums(loss_U, weight_U)

    return build


def _rmse(rows: Rows, user: IntVector) -> Statistic:
    """Take the root of the mean squared error of each draw."""
    mean_squared_error = _mean_of(row_squared_error)(rows, user)
    return lambda drawn: float(np.sqrt(mean_squared_error(drawn)))


def _normalised_entropy(rows: Rows, user: IntVector) -> Statistic:
    """Divide each draw's log loss by the entropy of that draw's own mean label."""
    loss = _mean_of(row_log_loss)(rows, user)
    rate = _mean_of(lambda columns: columns.label)(rows, user)

    def statistic(drawn: Vector) -> float:
        floor = entropy(rate(drawn))
        return loss(drawn) / floor if floor > 0 else float("nan")

    return statistic


POOLED_METRICS: dict[str, PooledMetric] = {
    "auc": PooledMetric(check=checked_binary, statistic=_auc, higher_is_better=True),
    "gauc": PooledMetric(check=checked_binary, statistic=_gauc, higher_is_better=True),
    "log_loss": PooledMetric(
        check=checked_probability, statistic=_mean_of(row_log_loss), higher_is_better=False
    ),
    "normalised_entropy": PooledMetric(
        check=checked_probability, statistic=_normalised_entropy, higher_is_better=False
    ),
    "brier": PooledMetric(
        check=checked_probability, statistic=_mean_of(row_squared_error), higher_is_better=False
    ),
    "rmse": PooledMetric(check=checked, statistic=_rmse, higher_is_better=False),
    "mae": PooledMetric(check=checked, statistic=_mean_of(row_absolute_error), higher_is_better=False),
}
