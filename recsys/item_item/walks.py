"""Item-item weights by a walk from an item to one of its users, and on to one of that user's items.

What long histories say counts less, and what everybody has counts less: a closed form that errs elsewhere
than EASE, so a sum of both orders small sets better than either. Sources: P3alpha, Cooper et al., WWW 2014;
RP3beta, Paudel et al., TiiS 2017.

Shapes: U users, I items, K neighbours.
"""

from typing import Any

import numpy as np

from recsys.item_item.neighbours import MOST_NEIGHBOURS, ItemItem, cut_sparse
from recsys.item_item.pair_counts import blocks_of_counts

STEP = 0.5
"""Power of a chance of a step, from an item to a user and on; 1 is the walk itself."""
POPULARITY = 0.4
"""Power of the number of users by which the item at the end is divided."""
_ROWS_AT_ONCE = 4096


def build_walks(matrix: Any, *, most: int = MOST_NEIGHBOURS) -> ItemItem:
    """Build from users' items, sparse 0/1 CSR [U, I]; the products are never all in memory."""
    from scipy import sparse

    of_user, of_item = (np.maximum(np.asarray(matrix.sum(axis=axis)).ravel(), 1.0) for axis in (1, 0))
    # A user stands in both factors of the product: each takes the square root.
    weighted = (sparse.diags_array(of_user ** (-STEP / 2)) @ matrix).tocsr().astype(np.float32)
    begins, ends = of_item**-STEP, of_item**-POPULARITY
    neighbours = np.full((of_item.size, most), -1, np.int32)
    weights = np.zeros((of_item.size, most), np.float32)
    for start, stop, block in blocks_of_counts(weighted):
        row = np.repeat(np.arange(start, stop), np.diff(block.indptr))
        block.data *= (begins[row] * ends[block.indices]).astype(np.float32)
        block.data[row == block.indices] = 0.0
        neighbours[start:stop], weights[start:stop] = cut_sparse(block, most)
    return ItemItem(neighbours=neighbours, weights=weights)


def blend(table: ItemItem, other: ItemItem, share: float) -> ItemItem:
    """Add to a table a share of another one, as wide as the first at share 1; as many neighbours stay."""
    most = table.neighbours.shape[1]
    size, of_other = (float(np.linalg.norm(part.weights)) for part in (table, other))
    if not share or not of_other:
        return table
    total = (table.matrix() + np.float32(share * size / of_other) * other.matrix()).tocsr()
    parts = [
        cut_sparse(total[start : start + _ROWS_AT_ONCE], most)
        for start in range(0, table.num_items, _ROWS_AT_ONCE)
    ]
    return ItemItem(
        neighbours=np.concatenate([part[0] for part in parts]),
        weights=np.concatenate([part[1] for part in parts]),
    )
