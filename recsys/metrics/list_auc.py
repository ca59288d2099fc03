"""AUC inside each list: how well a head orders what one answer shows, whoever the user is and whenever it is.

Rows of different lists are never compared. Where positions of a list are looked at unequally, a label weighs
1 / its chance at that position: 1 / examination for a positive (Joachims et al., WSDM 2017), and for a
negative 1 / (1 - examination * rate), since an item nobody looked at is no negative. An order by position
alone then wins half of the pairs. Shapes: N rows, G lists.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from recsys.metrics.columns import (
    IntVector,
    Lists,
    Rows,
    Vector,
    checked,
    checked_binary,
    checked_lists,
    group_sums,
    ratio,
)
from recsys.metrics.order import order_by_prediction, segment_aucs

LARGEST_RATE = 0.95
"""A negative at a position that is always looked at is never rarer than 1 in 20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListValues:
    """The figure of each list [G], NaN where it has no pair to compare, and the weight it counts with."""

    value: Vector
    weight: Vector
    """Sum of its rows' weights, times the mean weight of its pairs where positions are seen unequally."""
    a_row: IntVector
    """One of its rows, to look up its user."""

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """Mark the lists [G] that have a pair to compare."""
        return ~np.isnan(self.value)

    @property
    def mean(self) -> float:
        """Average the lists by weight; NaN when none has a pair."""
        used = self.used
        return float(np.average(self.value[used], weights=self.weight[used])) if used.any() else float("nan")


def list_auc(
    label: npt.ArrayLike, prediction: npt.ArrayLike, lists: Lists, weight: npt.ArrayLike | None = None
) -> float:
    """Return the mean AUC of the lists with both labels, by weight; ties count half; NaN when there is none.

    Args: label [N] in {0, 1}; prediction [N], any scale; weight [N] or None: how many rows a row stands for.
    Raises: DataError on a NaN, a label that is neither 0 nor 1, or unequal lengths.
    """
    rows = checked_binary(label, prediction, weight)
    return aucs_of_lists(with_lists(rows, lists)).mean


def list_concordance(
    label: npt.ArrayLike, prediction: npt.ArrayLike, lists: Lists, weight: npt.ArrayLike | None = None
) -> float:
    """Return the mean share of a list's pairs of unequal labels that are in the order of their predictions.

    Args: label [N] and prediction [N], any finite numbers; weight [N] or None. A pair weighs the product of
        its rows' weights; equal predictions count half.
    Raises: DataError on a NaN or unequal lengths.
    """
    return concordances_of_lists(with_lists(checked(label, prediction, weight), lists)).mean


def count_lists(label: npt.ArrayLike, lists: Lists) -> tuple[int, int]:
    """Count the lists whose known labels differ, and those of two rows or more whose labels are all alike.

    Args: label [N], NaN where not known.
    """
    label_N = np.asarray(label, dtype=np.float64)
    rows = np.flatnonzero((lists.group >= 0) & ~np.isnan(label_N))
    code = np.unique(lists.group[rows], return_inverse=True)[1]
    size = np.bincount(code)
    low, high = np.full(size.size, np.inf), np.full(size.size, -np.inf)
    np.minimum.at(low, code, label_N[rows])
    np.maximum.at(high, code, label_N[rows])
    return int((low < high).sum()), int(((low == high) & (size > 1)).sum())


def aucs_of_lists(rows: Rows) -> ListValues:
    """Give the AUC of every list, from one sort. Args: rows: binary labels, with lists."""
    inside = RowsInLists.of(rows)
    if not inside.code.size:
        return NO_LISTS
    positive, negative = inside.weight * inside.label, inside.weight * (1.0 - inside.label)
    pairs = inside.sums(positive) * inside.sums(negative)
    positive, negative = _by_chance(inside, positive, negative)
    order = order_by_prediction(inside.prediction, inside.code)
    value = segment_aucs(order, positive[order.rows], negative[order.rows])
    return inside.values(value, ratio(inside.sums(positive) * inside.sums(negative), pairs))


def concordances_of_lists(rows: Rows) -> ListValues:
    """Give the concordance of every list; a pass compares each row with the one so many places further on.

    Passes are as many as the longest list has rows; together they compare each pair of a list once.
    """
    inside = RowsInLists.of(rows)
    if not inside.code.size:
        return NO_LISTS
    order = np.argsort(inside.code, kind="stable")
    label, prediction, weight = (c[order] for c in (inside.label, inside.prediction, inside.weight))
    code = inside.code[order]
    last = np.cumsum(np.bincount(code))[code] - 1
    wins, pairs = np.zeros(code.size), np.zeros(code.size)
    left, step = np.arange(code.size), 1
    while (left := left[left + step <= last[left]]).size:
        right = left + step
        higher = np.sign(label[left] - label[right])
        pair = weight[left] * weight[right] * np.abs(higher)
        pairs[left] += pair
        wins[left] += pair * (1.0 + higher * np.sign(prediction[left] - prediction[right])) / 2
        step += 1
    value = ratio(group_sums(wins, code), group_sums(pairs, code))
    return inside.values(value, np.ones(value.size))


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsInLists:
    """The rows [N] that are in a list."""

    label: Vector
    prediction: Vector
    weight: Vector
    examination: Vector
    code: IntVector
    """The row's list, 0..G-1."""
    place: IntVector
    """Which of the caller's rows it is."""

    @classmethod
    def of(cls, rows: Rows) -> Self:
        """Take them from all rows, which name their lists."""
        assert rows.lists is not None, "a metric inside lists checks that rows have them"
        place = np.flatnonzero(rows.lists.group >= 0)
        return cls(
            label=rows.label[place],
            prediction=rows.prediction[place],
            weight=rows.weight[place],
            examination=rows.lists.examination[place],
            code=np.unique(rows.lists.group[place], return_inverse=True)[1].astype(np.int64, copy=False),
            place=place,
        )

    def sums(self, values: Vector) -> Vector:
        """Add values [N] up by list [G]."""
        return group_sums(values, self.code)

    def values(self, value: Vector, pair_weight: Vector) -> ListValues:
        """Give lists' figures [G], each weighing the sum of its rows' weights times pair_weight [G]."""
        a_row = np.zeros(value.size, np.int64)
        a_row[self.code] = self.place
        return ListValues(
            value=value,
            weight=self.sums(self.weight) * pair_weight,
            a_row=a_row,
        )


def _by_chance(inside: RowsInLists, positive: Vector, negative: Vector) -> tuple[Vector, Vector]:
    """Weigh labels by 1 / their chance at their position, relative to a position that is always looked at."""
    looked_at = inside.examination
    rate = min(float(positive.sum() / (inside.weight @ looked_at)), LARGEST_RATE) if positive.any() else 0.0
    return positive / looked_at, negative * (1.0 - rate) / (1.0 - rate * looked_at)


def with_lists(rows: Rows, lists: Lists) -> Rows:
    """Name the list of each row.

    Raises: DataError as `checked_lists`.
    """
    return replace(rows, lists=checked_lists(lists, rows.label.size))


NO_LISTS = ListValues(value=np.empty(0), weight=np.empty(0), a_row=np.empty(0, np.int64))
