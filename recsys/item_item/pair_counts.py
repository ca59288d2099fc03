"""How many users have both of two items: integers that add up over shares of the users.

Shapes: U users, I items; C [I, I] counts, on the diagonal the users who have the item.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from recsys.item_item.histories import Histories

PRODUCTS_AT_ONCE = 30_000_000
"""Most pairs of a block's users and items: bounds what a block of counts takes, 12 bytes each."""


def count_pairs(histories: Histories, num_items: int) -> Any:
    """Count pairs of items that users have met: sparse CSR int32 [I, I]. Counts of other users add up."""
    ones = histories.matrix(num_items).astype(np.int32)
    ones.data[:] = 1
    return _product(ones, ones)


def gram_of(matrix: Any) -> Any:
    """Give the Gram matrix of users' items, sparse CSR [I, I]: their counts where all values are 1."""
    return _product(matrix, matrix)


def blocks_of_counts(matrix: Any) -> Iterator[tuple[int, int, Any]]:
    """Give the counts of a matrix [U, I] in blocks of items, never all at once: (start, stop, C[start:stop]).

    The matrix may have values other than 1; then the blocks are those of its Gram matrix, float32.
    """
    by_item = matrix.T.tocsr()
    per_user = np.diff(matrix.indptr)
    done = np.concatenate([[0], np.cumsum(per_user[by_item.indices], dtype=np.int64)])
    block = done[by_item.indptr[1:]] // PRODUCTS_AT_ONCE
    starts = np.concatenate([[0], np.flatnonzero(np.diff(block)) + 1, [block.size]])
    for start, stop in pairwise(starts.tolist()):
        yield start, stop, (by_item[start:stop] @ matrix).tocsr()


def blocks_of_table(counts: Any, rows: int = 4096) -> Iterator[tuple[int, int, Any]]:
    """Give a counted table [I, I] in the same form."""
    for start in range(0, counts.shape[0], rows):
        stop = min(start + rows, counts.shape[0])
        yield start, stop, counts[start:stop]


def _product(left: Any, right: Any) -> Any:
    return (left.T.tocsr() @ right).tocsr()
