"""The popularity list: the answer when nothing else works, and a source of candidates. P items, I rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.catalogue.view import Allowed, Catalogue, Rows

_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Popular:
    """Popular items of one catalogue."""

    rows: npt.NDArray[np.int32]
    """[P], most popular first."""
    score_by_row: npt.NDArray[np.float32]
    """[I]; 0: not in the list."""

    @classmethod
    def of(cls, catalogue: Catalogue, item_ids: Sequence[str], scores: Sequence[float]) -> "Popular":
        """Read a list, most popular first; ids that the catalogue does not have are left out."""
        rows = catalogue.rows_or_missing(item_ids)
        known = rows >= 0
        by_row = np.zeros(len(catalogue), np.float32)
        by_row[rows[known]] = np.asarray(scores, np.float32)[known]
        return cls(rows[known].astype(np.int32), by_row)

    def first(self, k: int, allowed: Allowed) -> Rows:
        """List the k most popular allowed rows; fewer when there are fewer."""
        found = np.zeros(0, np.int64)
        for start in range(0, self.rows.size, _CHUNK):
            if found.size >= k:
                break
            rows = self.rows[start : start + _CHUNK].astype(np.int64)
            found = np.concatenate([found, rows[allowed.of(rows)]])
        return found[:k]

    def scores(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Return the popularity of rows [N]; 0 for those not in the list."""
        scores = np.zeros(rows.size, np.float64)
        known = rows < self.score_by_row.size
        scores[known] = self.score_by_row[rows[known]]
        return scores
