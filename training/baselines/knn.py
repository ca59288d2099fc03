"""Item-kNN: an item is scored by its cosine similarity to what the user liked before.

Shapes: U users, I items. Source: Sarwar et al., WWW 2001; shrinkage: Ferrari Dacrema et al., RecSys 2019.
"""

from typing import Any

import numpy as np
import polars as pl

NEIGHBOURS = 100
"""Similar items kept per item."""
SHRINKAGE = 10.0
"""Added to the norms' product, so that one shared user does not make two rare items alike."""
_BLOCK_CELLS = 20_000_000


class ItemKnn:
    """Similarities of one matrix of positives."""

    def __init__(self, pairs: pl.DataFrame) -> None:
        """Learn from (user_id, item_id) pairs; a pair twice counts once."""
        from scipy import sparse

        pairs = pairs.unique()
        self.users = _numbered(pairs["user_id"])
        self.items = _numbered(pairs["item_id"])
        cells = (_codes(pairs["user_id"], self.users), _codes(pairs["item_id"], self.items))
        shape = (self.users.height, self.items.height)
        self.matrix: Any = sparse.csr_matrix((np.ones(pairs.height, np.float32), cells), shape)
        self.similarity: Any = _similarity(self.matrix)

    def of_pairs(self, users: pl.Series, items: pl.Series) -> np.ndarray:
        """Score (user, item) pairs [N]; 0 where the user or the item has no earlier positives."""
        user, item = _codes(users, self.users), _codes(items, self.items)
        known = (user >= 0) & (item >= 0)
        scores = np.zeros(len(user))
        if known.any():
            distinct, row = np.unique(user[known], return_inverse=True)
            scores[known] = np.asarray((self.matrix[distinct] @ self.similarity)[row, item[known]]).ravel()
        return scores

    def of_lists(self, users: pl.Series, items: pl.Series) -> np.ndarray:
        """Score every item of a catalogue [I] for some users: float32 [U, I]."""
        user, item = _codes(users, self.users), _codes(items, self.items)
        found = np.zeros((len(user), len(item)), np.float32)
        mine, listed = np.flatnonzero(user >= 0), np.flatnonzero(item >= 0)
        if mine.size and listed.size:
            scores = (self.matrix[user[mine]] @ self.similarity).toarray()
            found[np.ix_(mine, listed)] = scores[:, item[listed]]
        return found


def _similarity(matrix: Any) -> Any:
    """Give the shrunk cosines [I, I] of columns, the NEIGHBOURS largest a row, an item not to itself."""
    from scipy import sparse

    num_items = matrix.shape[1]
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel())
    block = max(1, _BLOCK_CELLS // max(num_items, 1))
    kept = []
    for start in range(0, num_items, block):
        stop = min(start + block, num_items)
        cosines = (matrix[:, start:stop].T @ matrix).toarray()
        cosines /= norms[start:stop, None] * norms[None, :] + SHRINKAGE
        cosines[np.arange(stop - start), np.arange(start, stop)] = 0.0
        if num_items > NEIGHBOURS:
            rank = np.argpartition(-cosines, NEIGHBOURS, axis=1)[:, NEIGHBOURS:]
            np.put_along_axis(cosines, rank, 0.0, axis=1)
        kept.append(sparse.csr_matrix(cosines))
    return sparse.vstack(kept, format="csr") if kept else sparse.csr_matrix((0, 0), dtype=np.float32)


def _numbered(ids: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"id": ids.unique().sort()}).with_row_index("code")


def _codes(ids: pl.Series, numbered: pl.DataFrame) -> np.ndarray:
    found = ids.alias("id").to_frame().join(numbered, on="id", how="left", maintain_order="left")["code"]
    codes: np.ndarray = found.cast(pl.Int64).fill_null(-1).to_numpy()
    return codes
