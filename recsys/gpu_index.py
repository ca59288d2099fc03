"""Item vectors on a GPU, searched exactly by FAISS; a filter is applied to what was found.

On a GPU, FAISS 1.15 passes over a selector in silence: `FlatIndex::query` takes `sel` and does not read it.
So none is given: more items are fetched than asked for, and the forbidden ones dropped. Where too few are
left, whoever calls searches on the processor.

Shape letters: I items, D dimensions.
"""

import math
import threading

import numpy as np
import torch  # before faiss: the other order can load a second OpenMP runtime

import faiss  # isort: skip

from recsys.errors import ConfigError
from recsys.mask import Mask

MAX_FOUND = 2048
"""FAISS finds at most so many neighbours on a GPU (its GPU_MAX_SELECTION_K)."""
SPARE_SHARE = 1.5
SPARE_ITEMS = 64
"""So many more are fetched than a filter needs on average: it may forbid more of the user's nearest."""
SCRATCH_BYTES = 1 << 28
"""FAISS's working memory on the GPU, per index; by default up to 1.5 GB, and a reload holds two indexes."""


def why_no_gpu_search() -> str | None:
    """Say why the FAISS of this process cannot search on a GPU, and the remedy; None when it can."""
    if not hasattr(faiss, "StandardGpuResources"):
        return (
            f"faiss {faiss.__version__} is built without CUDA; install faiss-gpu in place of faiss-cpu "
            "(`make setup VARIANT=cuda`)"
        )
    if faiss.get_num_gpus() == 0:
        return (
            f"faiss {faiss.__version__} finds no GPU; check that `nvidia-smi` lists one and that its driver "
            "is new enough for CUDA 12"
        )
    return None


class GpuVectors:
    """A copy of an exact CPU index on a GPU, float32; safe to search from several threads."""

    def __init__(self, index: faiss.IndexFlat, device: torch.device) -> None:
        """Copy the vectors.

        Raises: ConfigError when FAISS cannot use the GPU, or the GPU has no room for the vectors.
        """
        if (why := why_no_gpu_search()) is not None:
            raise ConfigError(f"items cannot be searched on {device}: {why}")
        options = faiss.GpuClonerOptions()
        options.use_cuvs = False  # the builds with cuVS round and select in another way
        # Kept: the copy on the GPU uses its memory and streams.
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(SCRATCH_BYTES)
        try:
            self._index = faiss.index_cpu_to_gpu(self._resources, device.index or 0, index, options)
        except RuntimeError as error:
            gib = index.ntotal * index.d * 4 / 2**30
            raise ConfigError(
                f"{index.ntotal} item vectors of {index.d} dimensions ({gib:.1f} GiB) cannot be put on "
                f'{device}: {error}; free memory on it, or set [serving] device = "cpu"'
            ) from error
        # One at a time: FAISS's scratch memory and streams on a GPU are not for two threads.
        self._one_at_a_time = threading.Lock()

    def search(self, vector_D: np.ndarray, k: int, allowed: Mask | None) -> np.ndarray:
        """Return up to k allowed rows, best first; fewer, or none, where the GPU does not find k of them.

        Args: k: at most as many as are allowed; allowed: None: all are.
        """
        size = self._index.ntotal
        fetched = _num_fetched(k, size, size if allowed is None else allowed.count)
        if fetched == 0:
            return np.zeros(0, np.int64)
        query = np.ascontiguousarray(vector_D[None], np.float32)
        with self._one_at_a_time:
            _, found = self._index.search(query, fetched)
        rows: np.ndarray = found[0][found[0] >= 0]
        return (rows if allowed is None else rows[allowed[rows]])[:k]


def _num_fetched(k: int, size: int, passing: int) -> int:
    """Give how many neighbours to ask for; 0 when so few pass that k of them are not to be expected."""
    on_average = k * size / passing
    if on_average > MAX_FOUND and size > MAX_FOUND:
        return 0
    if passing == size:
        return k
    return min(size, MAX_FOUND, math.ceil(SPARE_SHARE * on_average) + SPARE_ITEMS)
