"""The popularity list: the answer when nothing else works, and a source of candidates. P items, I rows."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.mapped_tensors import map_array
from recsys.user_sources import popularity
from serving.catalogue.view import Allowed, Catalogue, Rows

_CHUNK = 1024
_FEW = 10_000
"""Of fewer allowed rows each is looked up; among more, the list's first allowed ones are found soon."""


@dataclass(frozen=True, slots=True)
class Popular:
    """Popular items of one catalogue."""

    rows: npt.NDArray[np.int32]
    """[P], most popular first."""
    scores_in_order: npt.NDArray[np.float32]
    """[P]."""
    place_by_row: npt.NDArray[np.int32]
    """[I], places in `rows`; P: not in the list."""

    @classmethod
    def of(cls, catalogue: Catalogue, item_ids: Sequence[str], scores: Sequence[float]) -> "Popular":
        """Read a list, most popular first; ids that the catalogue does not have are left out."""
        rows = catalogue.rows_or_missing(item_ids)
        known = rows >= 0
        listed = rows[known].astype(np.int32)
        places = np.full(len(catalogue), listed.size, np.int32)
        places[listed] = np.arange(listed.size)
        return cls(listed, np.asarray(scores, np.float32)[known], places)

    @classmethod
    def of_bundle(cls, catalogue: Catalogue, popular: pl.DataFrame) -> "Popular":
        """Read a bundle's list: a frame of item_id and score, most popular first."""
        return cls.of(catalogue, popular["item_id"].to_list(), popular["score"].to_list())

    def write(self, folder: Path) -> None:
        """Write the arrays into a folder; `map` opens them."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def map(cls, folder: Path) -> "Popular":
        """Map what `write` wrote; the caller has made sure that nobody else could change it.

        Raises: OSError when a file is not there.
        """
        return cls(**{field.name: map_array(folder / f"{field.name}.npy") for field in fields(cls)})

    def first(self, k: int, allowed: Allowed) -> Rows:
        """List the k most popular allowed rows; fewer when there are fewer."""
        if allowed.mask.count <= _FEW:
            places = self._places(allowed.first(allowed.mask.count))
            return self.rows[np.sort(places[places < self.rows.size])[:k]].astype(np.int64)
        found = np.zeros(0, np.int64)
        start, size = 0, 2 * k  # most requests allow most of the list's first items
        while start < self.rows.size and found.size < k:
            rows = self.rows[start : start + size].astype(np.int64)
            found = np.concatenate([found, rows[allowed.of(rows)]])
            start, size = start + size, max(size, _CHUNK)
        return found[:k]

    def scores(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Return the popularity of rows [N]; 0 for those not in the list."""
        places = self._places(rows)
        listed = places < self.rows.size
        scores = np.zeros(rows.size, np.float64)
        scores[listed] = self.scores_in_order[places[listed]]
        return scores

    def shares(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return the popularity of rows [N] on a log scale from 0 to 1, the most popular item's being 1."""
        shares = np.zeros(rows.size, np.float32)
        places = self._places(rows)
        listed = places < self.rows.size
        shares[listed] = popularity(self.scores_in_order, places[listed])
        return shares

    def _places(self, rows: Rows) -> npt.NDArray[np.int32]:
        places = np.full(rows.size, self.rows.size, np.int32)
        known = rows < self.place_by_row.size  # fresh items are in no list
        places[known] = self.place_by_row[rows[known]]
        return places
