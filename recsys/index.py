"""The index: item embeddings -> FAISS index; a user's embedding -> the nearest allowed items only.

Up to EXACT_LIMIT items the index is exact. Above it is HNSW, and a selective filter still goes to exact
search: filtered HNSW loses most of its recall (0.96 to 0.31 when 1 % of the items pass). On a GPU both kinds
are exact; the file and the search of last resort are the processor's.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch  # before faiss: the other order can load a second OpenMP runtime

import faiss  # isort: skip

from recsys.device import CPU
from recsys.errors import BundleError
from recsys.gpu_index import GpuVectors
from recsys.mask import Mask

EXACT_LIMIT = 200_000
EXACT_SHARE = 0.1
"""A filter that passes less than this share of the items is searched exactly."""


@dataclass(frozen=True, slots=True)
class ItemIndex:
    """A FAISS index over unit vectors [I, D], inner product, and the vectors themselves."""

    index: faiss.Index
    embeddings_ID: np.ndarray
    on_gpu: GpuVectors | None = None
    """Searched first where present."""

    @classmethod
    def build(cls, embeddings_ID: np.ndarray) -> "ItemIndex":
        """Index unit vectors; their order is the item rows."""
        vectors = np.ascontiguousarray(embeddings_ID, np.float32)
        if vectors.shape[0] <= EXACT_LIMIT:
            index = faiss.IndexFlatIP(vectors.shape[1])
        else:
            index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = 80
        index.add(vectors)
        return cls(index, vectors)

    @property
    def kind(self) -> str:
        """Return the index type for the manifest."""
        return "exact" if isinstance(self.index, faiss.IndexFlat) else "hnsw32"

    def on(self, device: torch.device) -> "ItemIndex":
        """Return the same index, searched on a device.

        Raises: ConfigError when FAISS cannot use that device, or it has no room for the vectors.
        """
        return replace(self, on_gpu=None if device == CPU else GpuVectors(self.index, device))

    def search(self, vector_D: np.ndarray, k: int, allowed: Mask | None) -> np.ndarray:
        """Return up to k allowed item rows, best first; fewer only when fewer are allowed. None: all are."""
        num_items = self.embeddings_ID.shape[0]
        if allowed is not None and allowed.count == num_items:
            allowed = None
        passing = num_items if allowed is None else allowed.count
        k = min(k, passing)
        if k == 0:
            return np.zeros(0, np.int64)
        if self.on_gpu is not None:
            rows = self.on_gpu.search(vector_D, k, allowed)
            if rows.size == k:
                return rows
        if self.kind != "exact" and passing < EXACT_SHARE * num_items:
            return self._exact(vector_D, k, allowed)
        rows = self._approximate(vector_D, k, allowed)
        return rows if rows.size == k else self._exact(vector_D, k, allowed)

    def save(self, path: Path) -> None:
        """Write the FAISS file; the vectors are stored beside it by the bundle."""
        faiss.write_index(self.index, str(path))

    @classmethod
    def load(cls, path: Path, embeddings_ID: np.ndarray) -> "ItemIndex":
        """Read a FAISS file whose hash has already been verified.

        Raises: BundleError when it does not contain these vectors.
        """
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise BundleError(f"{path} is not a FAISS index ({error}); restore the bundle") from error
        if (index.ntotal, index.d) != embeddings_ID.shape:
            raise BundleError(
                f"{path} indexes {index.ntotal} vectors of {index.d} dimensions, the bundle has "
                f"{embeddings_ID.shape}; restore the bundle"
            )
        return cls(index, embeddings_ID)

    def _approximate(self, vector_D: np.ndarray, k: int, allowed: Mask | None) -> np.ndarray:
        selector = None if allowed is None else faiss.IDSelectorBitmap(allowed.bits)
        share = 1.0 if allowed is None else allowed.count / allowed.size
        parameters = (
            faiss.SearchParameters(sel=selector)
            if self.kind == "exact"
            # The beam also holds forbidden items, so its width grows with their share.
            else faiss.SearchParametersHNSW(sel=selector, efSearch=int(max(64, 2 * k) / share))
        )
        _, rows = self.index.search(np.ascontiguousarray(vector_D[None], np.float32), k, params=parameters)
        found: np.ndarray = rows[0][rows[0] >= 0]
        return found

    def _exact(self, vector_D: np.ndarray, k: int, allowed: Mask | None) -> np.ndarray:
        rows = np.arange(self.embeddings_ID.shape[0]) if allowed is None else allowed.rows()
        scores = self.embeddings_ID[rows] @ vector_D
        best = np.argpartition(-scores, k - 1)[:k]
        return rows[best[np.argsort(-scores[best], kind="stable")]]
