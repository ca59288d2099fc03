"""Check the columns that every metric takes: one length, nothing null or infinite, weights >= 0."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from recsys.errors import DataError

Vector = npt.NDArray[np.float64]
IntVector = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Say in which list each row [N] stands, and how likely its place in it was looked at."""

    group: IntVector
    """The list's number; below 0: the row is in none. A list is of one user."""
    examination: Vector
    """Relative chance in (0, 1] that the row's position was looked at; ones where positions count alike."""

    @classmethod
    def unplaced(cls, group: npt.ArrayLike) -> Self:
        """Make lists whose positions count alike."""
        codes = np.asarray(group, dtype=np.int64)
        return cls(group=codes, examination=np.ones(codes.shape))

    def take(self, rows: IntVector | Mask) -> "Lists":
        """Select rows."""
        return Lists(group=self.group[rows], examination=self.examination[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Hold checked columns: label [N], prediction [N], weight [N] (ones when none was given)."""

    label: Vector
    prediction: Vector
    weight: Vector
    lists: Lists | None = None
    """Where metrics inside lists are to be taken."""


def checked(label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> Rows:
    """Return the columns as float64, checked.

    Args: label [N], prediction [N], weight [N] >= 0 with a positive sum, or None for ones.
    Raises: DataError, naming the first row with a NaN or infinite value and how many there are; DataError on
        unequal lengths, no rows, negative weights or weights that sum to 0.
    """
    label_N = finite("label", label)
    prediction_N = finite("prediction", prediction)
    same_length("prediction", prediction_N, label_N.size)
    if label_N.size == 0:
        raise DataError("no rows to measure: label is empty; skip this segment or widen it")
    return Rows(label=label_N, prediction=prediction_N, weight=checked_weight(weight, label_N.size))


def checked_binary(
    label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Rows:
    """Return the columns as `checked` does, and require every label to be 0 or 1.

    Raises: DataError, as `checked`, and naming the first label that is neither 0 nor 1.
    """
    rows = checked(label, prediction, weight)
    refuse(
        "label", rows.label, (rows.label != 0) & (rows.label != 1), "not 0 or 1", "use a regression metric"
    )
    return rows


def checked_probability(
    label: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Rows:
    """Return the columns as `checked_binary` does, and require every prediction to lie in [0, 1].

    Raises: DataError, as `checked_binary`, and naming the first prediction outside [0, 1].
    """
    rows = checked_binary(label, prediction, weight)
    outside = (rows.prediction < 0) | (rows.prediction > 1)
    refuse("prediction", rows.prediction, outside, "outside [0, 1]", "pass probabilities, not logits")
    return rows


def checked_chances(
    chance: npt.ArrayLike, prediction: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Rows:
    """Return the columns as `checked` does, where the label is the true chance of a label.

    Raises: DataError, as `checked`, naming the first chance outside [0, 1], or the first weight that is not
        1: a draw of labels is of single rows.
    """
    rows = checked(chance, prediction, weight)
    outside = (rows.label < 0) | (rows.label > 1)
    refuse("chance", rows.label, outside, "outside [0, 1]", "pass probabilities, not logits")
    refuse(
        "weight", rows.weight, rows.weight != 1, "not 1", "true chances are of single rows; drop the weight"
    )
    return rows


def checked_weight(weight: npt.ArrayLike | None, num_rows: int) -> Vector:
    """Return weight [N] as float64, ones for None.

    Raises: DataError when a weight is NaN, infinite or negative, or when all are 0.
    """
    if weight is None:
        return np.ones(num_rows)
    weight_N = finite("weight", weight)
    same_length("weight", weight_N, num_rows)
    refuse("weight", weight_N, weight_N < 0, "negative", "weights count rows and are >= 0")
    if not weight_N.any():
        raise DataError("weight is 0 on every row, so there is nothing to measure; drop the column or fix it")
    return weight_N


def effective_rows(weight: Vector) -> float:
    """Count rows of equal weight that tell as much as rows of weight [N]: Kish's (Σw)² / Σw², 0 for no rows.

    What is sampled thinly weighs much and tells little: one row of weight 2,500 is evidence of one row.
    """
    return float(np.square(weight.sum()) / np.square(weight).sum()) if weight.any() else 0.0


def finite(name: str, values: npt.ArrayLike) -> Vector:
    """Return values [N] as a float64 vector.

    Raises: DataError when they are not one-dimensional, or naming the first NaN or infinity and their number.
    """
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.ndim != 1:
        raise DataError(f"{name} has shape {values_N.shape}; pass one dimension, a value for each row")
    refuse(name, values_N, ~np.isfinite(values_N), "NaN or infinite", "drop rows whose label is not known")
    return values_N


def checked_lists(lists: Lists | None, num_rows: int) -> Lists:
    """Return the lists of num_rows rows.

    Raises: DataError when there are none, on another length, or naming the first examination outside (0, 1].
    """
    if lists is None:
        raise DataError("the metric is inside lists, and the rows name no list; pass lists, or take auc")
    same_length("list group", lists.group, num_rows)
    same_length("examination", lists.examination, num_rows)
    outside = ~((lists.examination > 0) & (lists.examination <= 1))
    refuse("examination", lists.examination, outside, "outside (0, 1]", "give 1 where it is not known")
    return lists


def group_codes(name: str, group: npt.ArrayLike, num_rows: int) -> tuple[IntVector, int]:
    """Number the groups: group [N] of integers or strings -> (codes [N] in 0..num_groups-1, num_groups).

    Raises: DataError on a wrong length.
    """
    group_N = np.asarray(group)
    same_length(name, group_N, num_rows)
    known, codes = np.unique(group_N, return_inverse=True)
    return codes.astype(np.int64, copy=False), known.size


def ratio(numerator: Vector, denominator: Vector) -> Vector:
    """Divide entry by entry, NaN where denominator is 0."""
    quotient: Vector = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def group_sums(values: Vector, codes: IntVector) -> Vector:
    """Add values [N] up by group: codes [N] >= 0 -> sums [max code + 1]."""
    return np.bincount(codes, weights=values).astype(np.float64, copy=False)


def same_length(name: str, values: npt.NDArray[np.generic], num_rows: int) -> None:
    """Raise DataError unless values is one-dimensional with num_rows entries."""
    if values.shape != (num_rows,):
        raise DataError(f"{name} has shape {values.shape} but label has {num_rows} rows; pass the same rows")


def refuse(name: str, values: Vector, wrong: Mask, what: str, remedy: str) -> None:
    """Raise DataError naming the first row where wrong [N] is true, its value, and how many there are."""
    if wrong.any():
        row = int(np.argmax(wrong))
        count = int(np.count_nonzero(wrong))
        raise DataError(f"{name} is {what} first at row {row} ({values[row]}), {count} in all; {remedy}")
