"""Loss of each row, and their weighted mean: what log loss, Brier, RMSE and MAE are made of."""

from collections.abc import Callable

import numpy as np

from recsys.metrics.columns import Rows, Vector

EPSILON = 1e-7
"""Log loss clips predictions to [EPSILON, 1 - EPSILON]: float32 has nothing between 1 - 6e-8 and 1."""


def row_log_loss(rows: Rows) -> Vector:
    """Return each row's negative log likelihood [N], in nats, predictions clipped by EPSILON."""
    prediction = np.clip(rows.prediction, EPSILON, 1 - EPSILON)
    return -np.log(np.where(rows.label == 1, prediction, 1 - prediction))


def row_squared_error(rows: Rows) -> Vector:
    """Return each row's squared error [N]."""
    return np.square(rows.prediction - rows.label)


def row_absolute_error(rows: Rows) -> Vector:
    """Return each row's absolute error [N]."""
    return np.abs(rows.prediction - rows.label)


def mean_loss(row_loss: Callable[[Rows], Vector], rows: Rows) -> float:
    """Return the weighted mean of a row loss."""
    return float(np.average(row_loss(rows), weights=rows.weight))


def entropy(rate: float) -> float:
    """Return the entropy of a Bernoulli variable with this rate, in nats; 0 at rates 0 and 1."""
    if not 0 < rate < 1:
        return 0.0
    return float(-rate * np.log(rate) - (1 - rate) * np.log1p(-rate))
