"""Fresh items: new or changed since the bundle was built. Scored with the others, searched exactly.

Legend: F fresh items, I items of the bundle, N rows asked for, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recsys.index import ItemIndex
from recsys.mask import Mask
from recsys.model.ranker import ItemSide


@dataclass(frozen=True, slots=True)
class FreshItems:
    """Item sides by catalogue row: rows of the bundle's items replace these, higher rows are new items."""

    rows: np.ndarray
    """int64 [F], ascending."""
    side: ItemSide
    """[F], on the scorer's device."""
    embeddings: np.ndarray
    """Unit vectors [F, D] in host memory, where they are searched."""

    def updated(self, rows: np.ndarray, side: ItemSide) -> "FreshItems":
        """Return a copy with these items added; an item that it has already is replaced."""
        kept = np.flatnonzero(~np.isin(self.rows, rows))
        stacked = np.concatenate([self.rows[kept], rows])
        return _sorted(stacked, [_take(self.side, kept), side])

    def take(self, base: ItemSide, rows: np.ndarray) -> ItemSide:
        """Select item sides [N] by catalogue row: the fresh one where there is one, else the bundle's."""
        fresh, at = self._find(rows)
        if not fresh.any():
            return _take(base, rows)
        order = np.argsort(np.concatenate([np.flatnonzero(~fresh), np.flatnonzero(fresh)]))
        parts = [_take(base, rows[~fresh]), _take(self.side, at[fresh])]
        return _take(ItemSide.cat(parts), order)

    def vectors(self, base_ID: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return unit vectors [N, D] by catalogue row: a fresh item's, or else the bundle's of `base_ID`."""
        fresh, at = self._find(rows)
        vectors = base_ID[np.where(fresh, 0, rows)]
        vectors[fresh] = self.embeddings[at[fresh]]
        return vectors

    def search(self, index: ItemIndex, vector_D: np.ndarray, k: int, allowed: Mask | None) -> np.ndarray:
        """Return up to k allowed catalogue rows, nearest first: fresh items exactly, others by the index.

        Args: allowed: over all catalogue rows; None: all.
        """
        num_items = index.embeddings_ID.shape[0]
        in_index = Mask.full(num_items) if allowed is None else allowed.resized(num_items)
        replaced = self.rows[: np.searchsorted(self.rows, num_items)]
        # The index still has the replaced items' old vectors.
        indexed = index.search(vector_D, k, in_index.without(replaced))
        fresh = np.arange(self.rows.size) if allowed is None else np.flatnonzero(allowed[self.rows])
        rows = np.concatenate([indexed, self.rows[fresh]])
        similarity = np.concatenate(
            [index.embeddings_ID[indexed] @ vector_D, self.embeddings[fresh] @ vector_D]
        )
        found: np.ndarray = rows[np.argsort(-similarity, kind="stable")[:k]]
        return found

    def _find(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tell which rows [N] are fresh items, and at which position of `rows`."""
        at = np.minimum(np.searchsorted(self.rows, rows), self.rows.size - 1)
        return self.rows[at] == rows, at


def add_fresh_items(before: FreshItems | None, rows: np.ndarray, side: ItemSide) -> FreshItems:
    """Add encoded items [F] at catalogue rows to the fresh items there are."""
    return _sorted(rows, [side]) if before is None else before.updated(rows, side)


def _sorted(rows: np.ndarray, sides: Sequence[ItemSide]) -> FreshItems:
    order = np.argsort(rows)
    side = _take(ItemSide.cat(sides), order)
    return FreshItems(rows[order], side, side.embedding_BD.cpu().numpy())


def _take(side: ItemSide, rows: np.ndarray) -> ItemSide:
    return side.take(torch.from_numpy(rows).to(side.embedding_BD.device))
