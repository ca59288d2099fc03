"""Item-kNN: shrunk cosines of items' users, in blocks, for catalogues of any size.

An item is scored by what its neighbours' users have. Shrinkage keeps one shared user from making two rare
items alike. Sources: Sarwar et al., WWW 2001; shrinkage: Ferrari Dacrema et al., RecSys 2019.

Shapes: I items, K neighbours.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from recsys.item_item.neighbours import MOST_NEIGHBOURS, ItemItem, cut_sparse
from recsys.item_item.pair_counts import blocks_of_counts, blocks_of_table

SHRINKAGE = 10.0


def build_item_knn(matrix: Any, *, shrinkage: float = SHRINKAGE, most: int = MOST_NEIGHBOURS) -> ItemItem:
    """Build from users' items, sparse CSR [U, I]; the counts are never all in memory."""
    squares = np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel()
    return _built(blocks_of_counts(matrix), np.sqrt(squares), shrinkage, most)


def build_item_knn_of_counts(
    counts: Any,
    *,
    norms: np.ndarray | None = None,
    shrinkage: float = SHRINKAGE,
    most: int = MOST_NEIGHBOURS,
) -> ItemItem:
    """Build from counted pairs, sparse CSR [I, I], as `count_pairs` gives them and days add up.

    Args: norms: the items' [I], where the diagonal is not their number of users.
    """
    return _built(
        blocks_of_table(counts), np.sqrt(counts.diagonal()) if norms is None else norms, shrinkage, most
    )


def _built(
    blocks: Iterable[tuple[int, int, Any]], norms: np.ndarray, shrinkage: float, most: int
) -> ItemItem:
    neighbours = np.full((norms.size, most), -1, np.int32)
    weights = np.zeros((norms.size, most), np.float32)
    for start, stop, counts in blocks:
        block = counts.astype(np.float32)
        row = np.repeat(np.arange(start, stop), np.diff(block.indptr))
        block.data /= (norms[row] * norms[block.indices] + shrinkage).astype(np.float32)
        block.data[row == block.indices] = 0.0
        neighbours[start:stop], weights[start:stop] = cut_sparse(block, most)
    return ItemItem(neighbours=neighbours, weights=weights)
