"""Items that came, or changed, after a bundle was built: scored in one batch with the rest, searched exactly.

Legend: F late items, I items of the bundle, N rows asked for, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recsys.index import ItemIndex
from recsys.model.ranker import ItemSide


@dataclass(frozen=True, slots=True)
class LateItems:
    """Item sides by catalogue row; a row of the bundle replaces its own, a row behind its last one is new."""

    rows: np.ndarray
    """int64 [F], ascending."""
    side: ItemSide
    """[F]."""

    @property
    def embeddings(self) -> np.ndarray:
        """Give unit vectors [F, D]."""
        vectors: np.ndarray = self.side.embedding_BD.numpy()
        return vectors

    def updated(self, rows: np.ndarray, side: ItemSide) -> "LateItems":
        """Add items; one that is here already is replaced."""
        kept = np.flatnonzero(~np.isin(self.rows, rows))
        stacked = np.concatenate([self.rows[kept], rows])
        return _sorted(stacked, [self.side.take(torch.from_numpy(kept)), side])

    def take(self, base: ItemSide, rows: np.ndarray) -> ItemSide:
        """Select items [N] by catalogue row, from here where they are here, else from the bundle's own."""
        late, at = self._find(rows)
        if not late.any():
            return base.take(torch.from_numpy(rows))
        order = np.argsort(np.concatenate([np.flatnonzero(~late), np.flatnonzero(late)]))
        parts = [base.take(torch.from_numpy(rows[~late])), self.side.take(torch.from_numpy(at[late]))]
        return ItemSide.cat(parts).take(torch.from_numpy(order))

    def vectors(self, base: ItemSide, rows: np.ndarray) -> np.ndarray:
        """Give unit vectors [N, D] by catalogue row, as `take` finds them."""
        late, at = self._find(rows)
        vectors: np.ndarray = base.embedding_BD.numpy()[np.where(late, 0, rows)]
        vectors[late] = self.embeddings[at[late]]
        return vectors

    def search(
        self, index: ItemIndex, vector_D: np.ndarray, k: int, allowed: np.ndarray | None
    ) -> np.ndarray:
        """Give up to k allowed catalogue rows, nearest first: late ones exactly, others by the index.

        Args: allowed: bool over all catalogue rows; None: all.
        """
        own = None if allowed is None else allowed[: index.embeddings_ID.shape[0]]
        replaced = self.rows[self.rows < index.embeddings_ID.shape[0]]
        if replaced.size:  # the index has them as they were
            own = np.ones(index.embeddings_ID.shape[0], np.bool_) if own is None else own.copy()
            own[replaced] = False
        known = index.search(vector_D, k, own)
        here = np.arange(self.rows.size) if allowed is None else np.flatnonzero(allowed[self.rows])
        rows = np.concatenate([known, self.rows[here]])
        similarity = np.concatenate([index.embeddings_ID[known] @ vector_D, self.embeddings[here] @ vector_D])
        found: np.ndarray = rows[np.argsort(-similarity, kind="stable")[:k]]
        return found

    def _find(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tell which rows [N] are here, and where."""
        at = np.minimum(np.searchsorted(self.rows, rows), self.rows.size - 1)
        return self.rows[at] == rows, at


def late_items(known: LateItems | None, rows: np.ndarray, side: ItemSide) -> LateItems:
    """Add encoded items [F] at catalogue rows to those already there."""
    return _sorted(rows, [side]) if known is None else known.updated(rows, side)


def _sorted(rows: np.ndarray, sides: Sequence[ItemSide]) -> LateItems:
    order = np.argsort(rows)
    return LateItems(rows[order], ItemSide.cat(sides).take(torch.from_numpy(order)))
