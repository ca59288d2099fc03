"""Sort predictions once, then read weighted AUCs off the order: the one AUC core of the project.

The order depends on the predictions only, so a bootstrap sorts once and pays a gather and a
running sum for each replicate.
"""

from dataclasses import dataclass

import numpy as np

from recsys.metrics.columns import IntVector, Mask, Rows, Vector, ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionOrder:
    """Rows sorted by segment, then by prediction; equal predictions within a segment share a block.

    rows [N]: row numbers in sorted order; block_starts [T]: where in `rows` each block starts;
    segment_starts [S]: where in `block_starts` each segment starts.
    """

    rows: IntVector
    block_starts: IntVector
    segment_starts: IntVector

    @property
    def segment_rows(self) -> IntVector:
        """Give where in `rows` each segment starts [S]."""
        return self.block_starts[self.segment_starts]


def order_by_prediction(prediction: Vector, segment: IntVector | None = None) -> PredictionOrder:
    """Sort rows by (segment, prediction).

    Args: prediction [N], finite, N > 0; segment [N] in 0..S-1 with none empty, or None for one segment.
    """
    rows = np.argsort(prediction, kind="stable")
    if segment is None:
        return _blocks(rows, _changes(prediction[rows]), np.zeros(1, dtype=np.int64))
    # The key orders by segment, then by place in the first sort; sorting integers beats a second argsort.
    key = segment[rows] * rows.size + np.arange(rows.size)
    key.sort()
    segment_sorted, place = np.divmod(key, rows.size)
    rows = rows[place]
    new_segment = _changes(segment_sorted)
    return _blocks(rows, new_segment | _changes(prediction[rows]), np.flatnonzero(new_segment))


def segment_aucs(order: PredictionOrder, positive: Vector, negative: Vector) -> Vector:
    """Return the weighted AUC [S] of every segment, ties counted half; NaN where a class has no weight.

    Args: positive [N] and negative [N]: each row's weight in its class, 0 in the other, in the order of
        `order.rows`.
    """
    wins, pairs = segment_pairs(order, positive, negative)
    return ratio(wins, pairs)


def segment_pairs(order: PredictionOrder, positive: Vector, negative: Vector) -> tuple[Vector, Vector]:
    """Weigh every segment's pairs of a positive and a negative: those in the predicted order, and all [S].

    Ties count half. A row with weight in both classes, as one of a chance has, is a pair with itself, too.
    Args: as `segment_aucs`.
    """
    positive_T = np.add.reduceat(positive, order.block_starts)
    negative_T = np.add.reduceat(negative, order.block_starts)
    below_T = np.cumsum(negative_T) - negative_T
    starts = order.segment_starts
    below_T -= np.repeat(below_T[starts], np.diff(starts, append=below_T.size))
    wins = np.add.reduceat(positive_T * (below_T + 0.5 * negative_T), starts)
    return wins, np.add.reduceat(positive_T, starts) * np.add.reduceat(negative_T, starts)


def class_weights(rows: Rows, order: PredictionOrder) -> tuple[Vector, Vector]:
    """Return (positive [N], negative [N]) in sorted order: each row's weight in its class, 0 in the other."""
    positive = (rows.weight * rows.label)[order.rows]
    return positive, rows.weight[order.rows] - positive


def _changes(values: Vector | IntVector) -> Mask:
    """Mark [N] the rows that differ from the row before; the first row is marked."""
    changed = np.ones(values.size, dtype=np.bool_)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed


def _blocks(rows: IntVector, new_block: Mask, segment_rows: IntVector) -> PredictionOrder:
    """Turn row positions of segment starts [S] into block numbers and pack the order."""
    block_starts = np.flatnonzero(new_block)
    return PredictionOrder(
        rows=rows, block_starts=block_starts, segment_starts=np.searchsorted(block_starts, segment_rows)
    )
