"""AUC inside lists by the true chances of the labels: what `list_auc` has in the mean over draws of labels.

A day of a rare label has few lists with both labels, and which ones is luck. A simulator knows every row's
chance p, and then the luck can be taken out: of a list with n rows of which K turn out positive,

    E[AUC; 0 < K < n] = sum over i, j of [s_i > s_j] p_i (1 - p_j) E[1 / (K (n - K)) | i positive, j negative]

with ties counted half. As 1 / (K (n - K)) is (1 / K + 1 / (n - K)) / n, and 1 / K the integral of t^(K - 1)
over [0, 1], the expectation is that of a product over the list's other rows: a polynomial in t, which
Gauss-Legendre nodes integrate exactly. At a node the sum over pairs is one of weights p_i / f_i and
(1 - p_j) / f_j, read off the same sort as an AUC of labels.

A list counts with the chance that it has both labels, times its rows: that is how often `list_auc` sees it.
Labels of a list are taken to be independent given the chances. Shapes: N rows, G lists.
"""

import numpy as np
import numpy.typing as npt

from recsys.metrics.columns import Lists, Rows, Vector, checked_chances, ratio, refuse
from recsys.metrics.list_auc import NO_LISTS, ListValues, RowsInLists, with_lists
from recsys.metrics.order import order_by_prediction, segment_pairs


def true_list_auc(chance: npt.ArrayLike, prediction: npt.ArrayLike, lists: Lists) -> float:
    """Return the expected AUC inside lists of labels that are drawn by their chances.

    Of chances that are all 0 or 1 it is `list_auc`. NaN when no list can have both labels.

    Args: chance [N] in [0, 1], the true probability of the label; prediction [N], any scale; lists whose
        positions count alike.
    Raises: DataError on a NaN, a chance outside [0, 1], unequal lengths, or an examination other than 1.
    """
    return true_aucs_of_lists(with_lists(checked_chances(chance, prediction), lists)).mean


def true_aucs_of_lists(rows: Rows) -> ListValues:
    """Give every list's expected AUC, given that it has both labels.

    Args: rows: as `checked_chances` returns them, labels are chances and weights 1, with lists.
    Raises: DataError where positions of a list are seen unequally: a chance is that of the position shown.
    """
    inside = RowsInLists.of(rows)
    if not inside.code.size:
        return NO_LISTS
    looked_at = inside.examination
    refuse("examination", looked_at, looked_at != 1, "not 1", "chances hold it already; use Lists.unplaced")
    order = order_by_prediction(inside.prediction, inside.code)
    positive = inside.label[order.rows]
    negative = 1.0 - positive
    starts = order.segment_rows
    size_G = np.diff(starts, append=positive.size)
    of_pairs_G = np.zeros(size_G.size)
    for t, share in zip(*_nodes(int(size_G.max())), strict=True):
        for counted in (positive, negative):
            factor = 1.0 - counted + counted * t
            a, b = positive / factor, negative / factor
            # A row is no pair with itself, though it ties.
            wins_G = segment_pairs(order, a, b)[0] - 0.5 * np.add.reduceat(a * b, starts)
            of_pairs_G += share * np.multiply.reduceat(factor, starts) * wins_G
    alike_G = np.multiply.reduceat(positive, starts) + np.multiply.reduceat(negative, starts)
    both_G = np.where(size_G > 1, 1.0 - alike_G, 0.0).clip(0.0)
    return inside.values(ratio(of_pairs_G / size_G, both_G), both_G)


def _nodes(longest: int) -> tuple[Vector, Vector]:
    """Give places in [0, 1] and shares that integrate the products of lists of so many rows, exactly."""
    places, shares = np.polynomial.legendre.leggauss(max(1, longest // 2))
    return (places + 1.0) / 2, shares / 2
