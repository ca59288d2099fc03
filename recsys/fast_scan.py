"""Compressed vectors of a large catalogue: a product quantizer of 4 bits, scanned in registers by FAISS.

Each dimension has 4 bits of its own. Two dimensions to 4 bits are half the bytes to scan, but several times
as many items must then be found, and ordered by their vectors, for the same recall.

Items lie in lists around centroids. A search may look at the nearest lists alone: enough where vectors
are clustered. Vectors are rotated at random first: a tower's differ far more in some dimensions than in
others, and each of them gets as many bits. What is found is approximate, so a caller looks for more
than it needs and orders them by the vectors themselves.

Shape letters: I items, D dimensions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch  # noqa: F401 - before faiss: the other order can load a second OpenMP runtime

import faiss  # isort: skip

from recsys.mask import Mask

MIN_ITEMS = 1_000
"""Fewer vectors are not compressed: FAISS asks for 39 of them per centroid."""
MAX_LISTS, ITEMS_A_LIST = 1_024, 1_000
NUM_TRAINING = 1 << 16
"""Vectors that centroids and quantizer are fitted on; FAISS takes no more than 256 of them per centroid."""


def build_fast_scan(vectors_ID: np.ndarray) -> faiss.Index:
    """Compress vectors, inner product; the same vectors give the same bytes.

    One thread: sums of several threads may be rounded in another order.
    """
    num_items, dim = vectors_ID.shape
    with one_thread():
        num_lists = min(MAX_LISTS, max(1, num_items // ITEMS_A_LIST))
        spec = f"RR{dim},IVF{num_lists},PQ{dim}x4fs"
        index = faiss.index_factory(dim, spec, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors_ID[np.linspace(0, num_items - 1, min(num_items, NUM_TRAINING), dtype=np.int64)])
        index.add(vectors_ID)
    return index


def is_fast_scan(index: faiss.Index) -> bool:
    """Tell whether an index is of the kind that is built here."""
    return isinstance(index, faiss.IndexPreTransform) and isinstance(
        faiss.downcast_index(index.index), faiss.IndexIVFPQFastScan
    )


def form(index: faiss.Index) -> str:
    """Name the kind: number of lists, of pieces, and of bits for each."""
    lists = faiss.downcast_index(index.index)
    return f"ivf{lists.nlist},pq{lists.pq.M}x4fs"


def scan(
    index: faiss.Index, vector_D: np.ndarray, count: int, share: float, allowed: Mask | None = None
) -> np.ndarray:
    """Return about the `count` nearest rows of some lists, nearest first; fewer when fewer are allowed there.

    Args: share: of the lists, the nearest ones; 1: all.
    """
    num_lists = max(1, round(share * faiss.downcast_index(index.index).nlist))
    if allowed is None:
        parameters = _without_filter(num_lists)
    else:
        parameters = _parameters(num_lists, faiss.IDSelectorBitmap(allowed.bits))
    _, rows = index.search(np.ascontiguousarray(vector_D[None], np.float32), count, params=parameters)
    found: np.ndarray = rows[0][rows[0] >= 0]
    return found


def _parameters(num_lists: int, selector: faiss.IDSelector | None) -> faiss.SearchParameters:
    lists = faiss.SearchParametersIVF(sel=selector, nprobe=num_lists)
    return faiss.SearchParametersPreTransform(index_params=lists)


@lru_cache
def _without_filter(num_lists: int) -> faiss.SearchParameters:
    """Make parameters that every search may use: they are only read."""
    return _parameters(num_lists, None)


def inner_products(vectors_ID: np.ndarray, vector_D: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the inner products float32 [N] of a vector with rows int64 [N], without copying them.

    Args: vectors_ID: float32, contiguous; a mapped file will do.
    """
    query = np.ascontiguousarray(vector_D, np.float32)
    rows = np.ascontiguousarray(rows, np.int64)
    found = np.empty(rows.size, np.float32)
    faiss.fvec_inner_products_by_idx(
        faiss.swig_ptr(found),
        faiss.swig_ptr(query),
        faiss.swig_ptr(vectors_ID),
        faiss.swig_ptr(rows),
        query.size,
        1,
        rows.size,
    )
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """Have FAISS work in this thread alone; it would begin helpers even for a single query."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
