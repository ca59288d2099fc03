"""Score predictions row by row: label, prediction, weight -> AUC, log loss, calibration, errors.

A metric that is not defined on its rows (AUC with one class) is NaN, never a made-up 0.5; wrong
input is a DataError. Every `weight` [N] is >= 0 and says how many rows a row stands for.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.errors import ConfigError
from recsys.metrics.columns import (
    IntVector,
    Rows,
    checked,
    checked_binary,
    checked_probability,
    group_sums,
)
from recsys.metrics.losses import entropy, mean_loss, row_absolute_error, row_log_loss, row_squared_error
from recsys.metrics.order import class_weights, order_by_prediction, segment_aucs

DEFAULT_BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Hold one bin of a reliability plot; standard_error is that of mean_label, 0 where all labels agree."""

    count: int
    mean_prediction: float
    mean_label: float
    standard_error: float


def auc(label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the probability that a positive row is predicted above a negative one, ties counted half.

    Exact for any ties. NaN when a class is absent or has no weight.

    Args: label [N] in {0, 1}; prediction [N], any scale; weight [N] or None.
    Raises: DataError on a NaN, a label that is neither 0 nor 1, or unequal lengths.
    """
    rows = checked_binary(label, prediction, weight)
    order = order_by_prediction(rows.prediction)
    positive, negative = class_weights(rows, order)
    return float(segment_aucs(order, positive, negative)[0])


def log_loss(label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the mean negative log likelihood in nats, predictions clipped by EPSILON (1e-7).

    Args: label [N] in {0, 1}; prediction [N] in [0, 1]; weight [N] or None.
    Raises: DataError on a NaN, a label that is neither 0 nor 1, or a prediction outside [0, 1].
    """
    return mean_loss(row_log_loss, checked_probability(label, prediction, weight))


def normalised_entropy(
    label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> float:
    """Return log loss over that of always predicting the mean label: below 1 is better than no model.

    NaN when a class is absent: there is nothing to predict.

    Args and Raises: as `log_loss`.
    Source: He et al., ADKDD 2014.
    """
    rows = checked_probability(label, prediction, weight)
    floor = entropy(float(np.average(rows.label, weights=rows.weight)))
    return mean_loss(row_log_loss, rows) / floor if floor > 0 else float("nan")


def brier(label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the mean squared error of probabilities. Args and Raises: as `log_loss`."""
    return mean_loss(row_squared_error, checked_probability(label, prediction, weight))


def ece(
    label: npt.ArrayLike,
    prediction: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    num_bins: int = DEFAULT_BINS,
) -> float:
    """Return the expected calibration error: mean |mean label - mean prediction| over equal-mass bins.

    Equal predictions share a bin, so row order does not matter; a constant prediction is one bin.

    Args and Raises: as `log_loss`; ConfigError when num_bins < 1.
    """
    rows = checked_probability(label, prediction, weight)
    bins = equal_mass_bins(rows, num_bins)
    gap = group_sums(rows.weight * (rows.label - rows.prediction), bins)
    return float(np.abs(gap).sum() / rows.weight.sum())


def reliability_bins(
    label: npt.ArrayLike,
    prediction: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    num_bins: int = DEFAULT_BINS,
) -> tuple[ReliabilityBin, ...]:
    """Return the non-empty bins of `ece` by rising prediction, for a plot. Args and Raises: as `ece`."""
    rows = checked_probability(label, prediction, weight)
    bins = equal_mass_bins(rows, num_bins)
    members = (bins == b for b in np.unique(bins[rows.weight > 0]))
    return tuple(_reliability_bin(rows, member & (rows.weight > 0)) for member in members)


def rmse(label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the root mean squared error, in the label's unit.

    Args: label [N] and prediction [N], any finite numbers; weight [N] or None.
    Raises: DataError on a NaN or unequal lengths.
    """
    return float(np.sqrt(mean_loss(row_squared_error, checked(label, prediction, weight))))


def mae(label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the mean absolute error, in the label's unit. Args and Raises: as `rmse`."""
    return mean_loss(row_absolute_error, checked(label, prediction, weight))


def equal_mass_bins(rows: Rows, num_bins: int) -> IntVector:
    """Return each row's bin [N] in 0..num_bins-1; equal predictions share the bin of their middle mass.

    Raises: ConfigError when num_bins < 1.
    """
    if num_bins < 1:
        raise ConfigError(f"num_bins is {num_bins}; ask for 1 or more")
    order = order_by_prediction(rows.prediction)
    mass_T = np.add.reduceat(rows.weight[order.rows], order.block_starts)
    middle_T = np.cumsum(mass_T) - mass_T / 2
    bin_T = np.minimum(middle_T / mass_T.sum() * num_bins, num_bins - 1).astype(np.int64)
    bins = np.empty(rows.label.size, dtype=np.int64)
    bins[order.rows] = np.repeat(bin_T, np.diff(order.block_starts, append=rows.label.size))
    return bins


def _reliability_bin(rows: Rows, member: npt.NDArray[np.bool_]) -> ReliabilityBin:
    """Summarise the rows where member [N] is true."""
    weight, label = rows.weight[member], rows.label[member]
    mean_label = np.average(label, weights=weight)
    variance = np.square(weight * (label - mean_label)).sum() / np.square(weight.sum())
    return ReliabilityBin(
        count=int(np.count_nonzero(member)),
        mean_prediction=float(np.average(rows.prediction[member], weights=weight)),
        mean_label=float(mean_label),
        standard_error=float(np.sqrt(variance)),
    )
