"""Fresh items: new or changed since the bundle was built. Scored with the others, searched exactly.

Legend: F fresh items, I items of the bundle, N rows asked for, D dimensions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.index import ItemIndex
from recsys.mask import Mask


@dataclass(frozen=True, slots=True)
class FreshItems:
    """Packed rows by catalogue row: rows of the bundle's items replace these, higher rows are new items."""

    rows: np.ndarray
    """int64 [F], ascending."""
    packed_FW: Tensor
    """As `ItemRows.packed_IW`, on the scorer's device."""
    embeddings: np.ndarray
    """Unit vectors [F, D] in host memory, where they are searched."""

    @classmethod
    def of(cls, rows: np.ndarray, packed_FW: Tensor, num_input: int) -> "FreshItems":
        """Sort items by their catalogue rows [F], which are distinct. Args: num_input: as in `ItemRows`."""
        order = np.argsort(rows)
        packed_FW = packed_FW.index_select(0, torch.from_numpy(order).to(packed_FW.device))
        return cls(rows[order], packed_FW, packed_FW[:, num_input:].cpu().numpy())

    def updated(self, rows: np.ndarray, packed_FW: Tensor, num_input: int) -> "FreshItems":
        """Return a copy with these items added; an item that it has already is replaced."""
        kept = np.flatnonzero(~np.isin(self.rows, rows))
        others_FW = self.packed_FW.index_select(0, torch.from_numpy(kept).to(packed_FW.device))
        return FreshItems.of(
            np.concatenate([self.rows[kept], rows]), torch.cat([others_FW, packed_FW]), num_input
        )

    def replace_in(self, packed_NW: Tensor, rows: np.ndarray) -> Tensor:
        """Overwrite the packed rows of those of `rows` [N] that are fresh."""
        fresh, at = self._find(rows)
        places = np.flatnonzero(fresh)
        if places.size:
            here, there = (torch.from_numpy(found).to(packed_NW.device) for found in (places, at[places]))
            packed_NW.index_copy_(0, here, self.packed_FW.index_select(0, there))
        return packed_NW

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
