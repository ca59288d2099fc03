"""The item-item weights of a catalogue: EASE where it fits, item-kNN above."""

from typing import Any

from recsys.item_item.ease import MOST_ITEMS, build_ease
from recsys.item_item.knn import SHRINKAGE, build_item_knn
from recsys.item_item.neighbours import MOST_NEIGHBOURS, ItemItem
from recsys.item_item.pair_counts import gram_of

PENALTY = 100.0


def build_item_item(
    matrix: Any, *, penalty: float = PENALTY, shrinkage: float = SHRINKAGE, most: int = MOST_NEIGHBOURS
) -> ItemItem:
    """Build from users' items, sparse CSR [U, I], such as `Histories.matrix` gives.

    Args: penalty: of EASE; shrinkage: of item-kNN; most: neighbours that are kept of an item.
    Raises: ConfigError when the penalty does not make EASE's matrix invertible.
    """
    if matrix.shape[1] > MOST_ITEMS:
        return build_item_knn(matrix, shrinkage=shrinkage, most=most)
    return build_ease(gram_of(matrix), penalty, most=most)
