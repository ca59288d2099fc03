"""The index: item embeddings -> FAISS index; a user's embedding -> the nearest allowed items only.

Up to `[retrieval] exact_items` the index is exact. Above, the items are compressed (`recsys.fast_scan`); some
times more than asked for are found there, and the vectors themselves say which of them are the nearest:

    few items pass    exact: the inner product with each of them
    most items pass   scan without the filter, drop the forbidden ones, order by the vectors
    otherwise         scan with the filter, order by the vectors

Where one way becomes cheaper than another is measured on the host (`recsys.index_costs`). A search takes one
thread. On a GPU every index is exact; the file and the search of last resort are the processor's.

Shape letters: I items, D dimensions.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch  # before faiss: the other order can load a second OpenMP runtime

import faiss  # isort: skip

from recsys.device import CPU
from recsys.errors import BundleError
from recsys.fast_scan import (
    MIN_ITEMS,
    build_fast_scan,
    form,
    inner_products,
    is_fast_scan,
    one_thread,
    scan,
)
from recsys.gpu_index import GpuVectors
from recsys.mask import Mask

EXACT_ITEMS = 50_000
"""Default of `[retrieval] exact_items`."""
DEFAULT_FACTOR = 8
"""Of an index whose factor nobody has tuned."""
_SPARE_SHARE, _SPARE_ITEMS = 1.1, 64
"""So many more are scanned for than pass on average: the user's nearest may pass less often."""
_FEWEST = 256
"""So many are scanned for at least: among the first few of a scan the nearest may not be."""
_MANY = 8
"""To find more than one in so many of the items, all are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutover:
    """Which way a filtered search goes; the defaults were measured at a million items."""

    exact_share: float = 0.05
    """A filter that passes at most this share of the items is searched exactly."""
    most_fetched: float = 4.0
    """At most so many times the items needed are found without the filter, and filtered then."""
    measured: bool = False

    def exact_rows(self, num_items: int) -> int:
        """Return how many items a filter may pass to be searched exactly."""
        return int(self.exact_share * num_items)


_UNMEASURED = Cutover()
WIDE_SHARE = 0.45
"""A filter that passes so many of the items is searched for in `wide_lists`: recall is checked of half."""


@dataclass(frozen=True, slots=True)
class ItemIndex:
    """A FAISS index over unit vectors [I, D], inner product, and the vectors themselves."""

    index: faiss.Index
    embeddings_ID: np.ndarray
    """float32, contiguous, in memory or mapped."""
    factor: int = DEFAULT_FACTOR
    """A compressed index is scanned for so many times the items asked for."""
    lists: float = 1.0
    """Of a compressed index this share of the lists is looked at, the nearest ones; 1: all."""
    wide_lists: float | None = None
    """The same where nothing is filtered, or most items pass: each list has more to find; None: `lists`."""
    cutover: Cutover = _UNMEASURED
    on_gpu: GpuVectors | None = None
    """Searched first where present."""

    @classmethod
    def build(cls, embeddings_ID: np.ndarray, exact_items: int = EXACT_ITEMS) -> "ItemIndex":
        """Index unit vectors; their order is the item rows. The same vectors give the same bytes."""
        vectors = np.ascontiguousarray(embeddings_ID, np.float32)
        if vectors.shape[0] > max(exact_items, MIN_ITEMS):
            return cls(build_fast_scan(vectors), vectors)
        return cls(_exact_index(vectors), vectors)

    @property
    def exact(self) -> bool:
        """Tell whether the index itself finds the nearest items without fail."""
        return isinstance(self.index, faiss.IndexFlat)

    @property
    def kind(self) -> str:
        """Return the index type for the manifest."""
        return "exact" if self.exact else form(self.index)

    def summary(self) -> dict[str, Any]:
        """Describe the index for the manifest."""
        made = {"kind": self.kind, "items": self.index.ntotal, "dim": self.index.d}
        tuned = {"factor": self.factor, "lists": self.lists, "wide_lists": self.unfiltered_lists}
        return made if self.exact else {**made, **tuned}

    @property
    def unfiltered_lists(self) -> float:
        """Return the share of the lists that a scan without a filter looks at."""
        return self.lists if self.wide_lists is None else self.wide_lists

    def on(self, device: torch.device) -> "ItemIndex":
        """Return the same index, searched on a device.

        Raises: ConfigError when FAISS cannot use that device, or it has no room for the vectors.
        """
        if device == CPU:
            return replace(self, on_gpu=None)
        exact = self.index if self.exact else _exact_index(self.embeddings_ID)
        return replace(self, on_gpu=GpuVectors(exact, device))

    def search(self, vector_D: np.ndarray, k: int, allowed: Mask | None) -> np.ndarray:
        """Return up to k allowed item rows, best first; fewer only when fewer are allowed. None: all are."""
        num_items = self.embeddings_ID.shape[0]
        if allowed is not None and allowed.count == num_items:
            allowed = None
        k = min(k, num_items if allowed is None else allowed.count)
        if k == 0:
            return np.zeros(0, np.int64)
        if self.on_gpu is not None:
            rows = self.on_gpu.search(vector_D, k, allowed)
            if rows.size == k:
                return rows
        with one_thread():
            return self._search(vector_D, k, allowed)

    def _search(self, vector_D: np.ndarray, k: int, allowed: Mask | None) -> np.ndarray:
        """Search k >= 1 items, of which as many are allowed; None: all are."""
        num_items = self.embeddings_ID.shape[0]
        if allowed is not None and allowed.count <= self.cutover.exact_rows(num_items):
            return self.nearest_of(vector_D, allowed.rows(), k)
        if self.exact:
            return self.scan_exactly(vector_D, k, allowed)
        found = self._candidates(vector_D, max(_FEWEST, k * self.factor), allowed)
        if found.size < k:
            found = np.arange(num_items) if allowed is None else allowed.rows()
        return self.nearest_of(vector_D, found, k)

    def save(self, path: Path) -> None:
        """Write the FAISS file; the vectors are stored beside it by the bundle."""
        faiss.write_index(self.index, str(path))

    @classmethod
    def load(
        cls,
        path: Path,
        embeddings_ID: np.ndarray,
        factor: int = DEFAULT_FACTOR,
        lists: float = 1.0,
        wide_lists: float | None = None,
        *,
        mapped: bool = False,
    ) -> "ItemIndex":
        """Read a FAISS file whose hash has already been verified.

        Args: mapped: leave it on disk, for processes to share; the file must not be changed meanwhile.
        Raises: BundleError when it does not contain these vectors.
        """
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        except RuntimeError as error:
            raise BundleError(f"{path} is not a FAISS index ({error}); restore the bundle") from error
        if (index.ntotal, index.d) != embeddings_ID.shape:
            raise BundleError(
                f"{path} indexes {index.ntotal} vectors of {index.d} dimensions, the bundle has "
                f"{embeddings_ID.shape}; restore the bundle"
            )
        vectors = np.ascontiguousarray(embeddings_ID, np.float32)
        if not (isinstance(index, faiss.IndexFlat) or is_fast_scan(index)):
            return cls.build(vectors)  # a graph of an earlier release: its vectors are the bundle's
        return cls(index, vectors, factor, lists, wide_lists)

    def nearest_of(self, vector_D: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
        """Return the k nearest of some rows [N], k <= N, best first; equally near ones by row."""
        scores = inner_products(self.embeddings_ID, vector_D, rows)
        if k < rows.size:
            best = np.argpartition(scores, rows.size - k)[rows.size - k :]
            rows, scores = rows[best], scores[best]
        found: np.ndarray = rows[np.lexsort((rows, -scores))]
        return found

    def scan_exactly(self, vector_D: np.ndarray, k: int, allowed: Mask | None) -> np.ndarray:
        """Search an exact index whole; k at most as many as are allowed."""
        selector = None if allowed is None else faiss.IDSelectorBitmap(allowed.bits)
        query = np.ascontiguousarray(vector_D[None], np.float32)
        _, rows = self.index.search(query, k, params=faiss.SearchParameters(sel=selector))
        found: np.ndarray = rows[0]
        return found

    def _candidates(self, vector_D: np.ndarray, count: int, allowed: Mask | None) -> np.ndarray:
        """Find about the `count` nearest allowed rows among the compressed items, or all that are allowed."""
        size = self.embeddings_ID.shape[0]
        passing = size if allowed is None else allowed.count
        if count * _MANY > passing:
            return np.arange(size) if allowed is None else allowed.rows()
        found = self._scan(vector_D, count, allowed, passing)
        if found.size < count and self.lists < 1:  # the filter passes few items of the nearest lists
            return scan(self.index, vector_D, count, 1.0, allowed)
        return found

    def _scan(self, vector_D: np.ndarray, count: int, allowed: Mask | None, passing: int) -> np.ndarray:
        """Look for items in the nearest lists; `passing` are allowed in all."""
        size = self.embeddings_ID.shape[0]
        if allowed is None:
            return scan(self.index, vector_D, count, self.unfiltered_lists)
        fetched = num_fetched(count, size / passing)
        if fetched <= count * self.cutover.most_fetched and fetched * _MANY <= size:
            lists = self.unfiltered_lists if passing >= WIDE_SHARE * size else self.lists
            found = scan(self.index, vector_D, fetched, lists)
            passing_first: np.ndarray = found[allowed[found]][:count]
            if passing_first.size == count:
                return passing_first
        return scan(self.index, vector_D, count, self.lists, allowed)


def num_fetched(count: int, over: float) -> int:
    """Give how many items to find for `count` that pass a filter. Args: over: items by passing items."""
    return math.ceil(_SPARE_SHARE * count * over) + _SPARE_ITEMS


def _exact_index(vectors_ID: np.ndarray) -> faiss.IndexFlat:
    index = faiss.IndexFlatIP(vectors_ID.shape[1])
    index.add(vectors_ID)
    return index
