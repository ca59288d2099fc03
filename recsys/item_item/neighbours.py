"""Items' strongest neighbours, and what a weighted history says of every item by them.

Shapes: I items, K neighbours, H events of one history, U users, N candidates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.errors import DataError
from recsys.item_item.histories import Histories

PADDING = -1
MOST_NEIGHBOURS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemItem:
    """For each item of a history, the items that it speaks for or against, and how strongly."""

    neighbours: np.ndarray
    """int32 [I, K], padded with -1."""
    weights: np.ndarray
    """float32 [I, K]; 0 at padding."""

    def __post_init__(self) -> None:
        """Check that both fit.

        Raises: DataError when shapes or types differ, or a neighbour is no item.
        """
        shape, num_items = self.neighbours.shape, self.neighbours.shape[0]
        if shape != self.weights.shape or len(shape) != 2:
            raise DataError(f"neighbours has shape {shape} and weights {self.weights.shape}; both are [I, K]")
        if self.neighbours.dtype != np.int32 or self.weights.dtype != np.float32:
            types = f"{self.neighbours.dtype} and {self.weights.dtype}"
            raise DataError(f"neighbours and weights are {types}; they must be int32 and float32")
        low, high = self.neighbours.min(initial=0), self.neighbours.max(initial=-1)
        if low < PADDING or high >= num_items:
            raise DataError(
                f"neighbours holds {low if low < PADDING else high}; items are 0 to {num_items - 1}"
            )

    @property
    def num_items(self) -> int:
        """Count the catalogue's items."""
        return int(self.neighbours.shape[0])

    def scores(self, rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score every item that one history says anything of.

        Args: rows: the history's items [H]; negative or new ones, which have no row, are passed over.
        weights: what each event counts [H], see `recency`.
        Returns: item rows, int64 rising, and their scores, float32; all other items have 0.
        """
        known = (rows >= 0) & (rows < self.num_items)
        rows, weights = rows[known], weights[known]
        items = self.neighbours[rows].ravel()
        values = (self.weights[rows] * weights.astype(np.float32)[:, None]).ravel()
        there = items >= 0
        items, values = items[there], values[there]
        if self.num_items <= _DENSE_ITEMS:
            return _summed_densely(items, values, self.num_items)
        return _summed_sorted(items, values)

    def matrix(self) -> Any:
        """Give the weights as one sparse CSR matrix [I, I], for many users at once."""
        from scipy import sparse

        there = self.neighbours >= 0
        ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        shape = (self.num_items, self.num_items)
        return sparse.csr_matrix((self.weights[there], self.neighbours[there], ends), shape)


_DENSE_ITEMS = 100_000
"""Up to so many, one pass over the whole catalogue is quicker than sorting what is met."""


def _summed_densely(items: np.ndarray, values: np.ndarray, num_items: int) -> tuple[np.ndarray, np.ndarray]:
    sums = np.bincount(items, values, num_items)
    found = np.flatnonzero(np.bincount(items, minlength=num_items))
    return found, sums[found].astype(np.float32)


def _summed_sorted(items: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not items.size:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    order = np.argsort(items)
    ordered = items[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    sums = np.add.reduceat(values[order].astype(np.float64), starts)
    return ordered[starts].astype(np.int64), sums.astype(np.float32)


def event_matrix(histories: Histories, weights: np.ndarray, num_items: int) -> Any:
    """Lay weighted events out as CSR float32 [U, I]; an item met again counts each time."""
    from scipy import sparse

    cells = (weights.astype(np.float32), histories.items, histories.starts)
    matrix = sparse.csr_matrix(cells, (histories.num_users, num_items), copy=True)
    matrix.sum_duplicates()
    return matrix


def cut_dense(block: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Keep the weights of a block [B, I] that are furthest from 0: (neighbours, weights) [B, most]."""
    places = min(most, block.shape[1])
    size = np.abs(block)
    if places < block.shape[1]:
        kept = np.argpartition(size, block.shape[1] - places, axis=1)[:, -places:]
    else:
        kept = np.broadcast_to(np.arange(places), block.shape).copy()
    kept.sort(axis=1)
    weights = np.take_along_axis(block, kept, axis=1).astype(np.float32)
    neighbours = np.where(weights == 0, PADDING, kept).astype(np.int32)
    return neighbours, weights


def cut_sparse(block: Any, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Do the same with a sparse CSR block [B, I]."""
    counts = np.diff(block.indptr)
    neighbours = np.full((counts.size, most), PADDING, np.int32)
    weights = np.zeros((counts.size, most), np.float32)
    few = np.repeat(counts <= most, counts)
    row = np.repeat(np.arange(counts.size), counts)[few]
    place = (np.arange(block.indices.size) - np.repeat(block.indptr[:-1], counts))[few]
    neighbours[row, place], weights[row, place] = block.indices[few], block.data[few]
    for long in np.flatnonzero(counts > most):
        part = slice(block.indptr[long], block.indptr[long + 1])
        kept = np.argpartition(np.abs(block.data[part]), counts[long] - most)[-most:]
        neighbours[long], weights[long] = block.indices[part][kept], block.data[part][kept]
    neighbours[weights == 0] = PADDING
    return neighbours, weights
