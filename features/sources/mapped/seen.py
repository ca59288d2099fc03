"""Which ids earlier days had, in 8 bytes each."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl


@dataclass(slots=True)
class Seen:
    """Hashes of the ids of earlier days."""

    _kept: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    """Sorted; each array is less than half as long as the one before."""

    def again(self, hashes: pl.Series) -> pl.Series:
        """Tell of a day's hashes [sorted, each once] which are there already, and take in the others."""
        ids = hashes.to_numpy()
        again = np.zeros(ids.size, bool)
        for earlier in self._kept:
            again |= earlier[np.minimum(np.searchsorted(earlier, ids), earlier.size - 1)] == ids
        self._add(ids[~again])
        return pl.Series(again, dtype=pl.Boolean)

    def _add(self, ids: npt.NDArray[np.uint64]) -> None:
        if not ids.size:
            return
        self._kept.append(ids)
        while len(self._kept) > 1 and 2 * self._kept[-1].size >= self._kept[-2].size:
            last = self._kept.pop()
            self._kept[-1] = np.sort(np.concatenate([self._kept[-1], last]))
