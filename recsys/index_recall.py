"""How much of what exact search finds an index finds, for fixed queries and filters of several selectivities.

Legend: Q queries, D dimensions, I items, k items asked for.
"""

import bisect
import itertools
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch  # noqa: F401 - before faiss: the other order can load a second OpenMP runtime

import faiss  # isort: skip

from recsys.config import RetrievalConfig
from recsys.errors import BundleError
from recsys.index import ItemIndex
from recsys.mask import Mask
from recsys.records import IndexRecord

SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)
"""Shares of the items that the filters pass; 1: no filter."""
FACTORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
LISTS = (0.125, 0.25, 0.5, 1.0)
WIDE_SHARES = (1.0, 0.5)
"""Filters that pass so many items may be searched without: more is found, and what they forbid is dropped."""
_WIDE_STEP = 1 / 32
"""Of all lists: in such steps, fewer of them are tried for these."""
_SCAN_NS, _ORDER_NS = 3.5, 450.0
"""Of an item that is scanned, and of one that is found: which setting is tried first. Not measured anew, as a
bundle's bytes must not depend on the clock."""
NUM_QUERIES = 128
"""Of one check: the mean recall is then known within about .5 %."""
MARGIN = 0.005
"""Other queries than those that the factor was tuned on find less or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """What searches with filters of one selectivity found."""

    recall: float
    """Mean share of the k nearest allowed items."""
    search_ms: float
    """Mean processor time of a search."""


class RecallCheck:
    """Queries, filters, and what exact search finds; then any number of indexes of the same vectors."""

    def __init__(
        self, embeddings_ID: np.ndarray, queries_QD: np.ndarray, k: int, shares: Sequence[float] = SHARES
    ) -> None:
        """Search exactly. Args: shares: of random filters, the same ones for the same number of items."""
        self.k = k
        self.queries = np.ascontiguousarray(queries_QD, np.float32)
        self._filters = {share: _filter(embeddings_ID.shape[0], share) for share in shares}
        self._nearest = {
            share: _nearest(embeddings_ID, self.queries, k, allowed)
            for share, allowed in self._filters.items()
        }

    def of(
        self, index: ItemIndex, wanted: float = 0.0, shares: Collection[float] = SHARES
    ) -> dict[float, Recall]:
        """Search with an index; returns what was found by share of the items that pass.

        Args: wanted: the first share that finds less is the last one. shares: of those that are checked.
        """
        found: dict[float, Recall] = {}
        for share in filter(shares.__contains__, self._filters):
            found[share] = self._one(index, share)
            if found[share].recall < wanted:
                break
        return found

    def _one(self, index: ItemIndex, share: float) -> Recall:
        allowed = self._filters[share]
        start = time.thread_time()
        found = [index.search(query, self.k, allowed) for query in self.queries]
        seconds = time.thread_time() - start
        shares = [
            np.isin(nearest, rows).mean() if nearest.size else 1.0
            for nearest, rows in zip(self._nearest[share], found, strict=True)
        ]
        return Recall(recall=float(np.mean(shares)), search_ms=1000 * seconds / len(found))


def tune(index: ItemIndex, check: RecallCheck, wanted: float) -> tuple[ItemIndex, dict[float, Recall]]:
    """Choose the cheapest factor and share of the lists with which every filter finds `wanted` and a margin.

    Returns: the index with them, and what that finds; all lists and the largest factor where nothing does.
    """
    num_items: int = index.embeddings_ID.shape[0]

    def cost(setting: tuple[int, float]) -> float:
        factor, lists = setting
        return _SCAN_NS * lists * num_items + _ORDER_NS * factor * check.k

    for factor, lists in sorted(itertools.product(FACTORS, LISTS), key=cost):
        tuned = replace(index, factor=factor, lists=lists)
        found = check.of(tuned, min(1.0, wanted + MARGIN))
        if lowest(found) >= min(1.0, wanted + MARGIN):
            return _with_wide_lists(tuned, check, min(1.0, wanted + MARGIN), found)
    tuned = replace(index, factor=FACTORS[-1], lists=1.0)
    return tuned, check.of(tuned)


def _with_wide_lists(
    index: ItemIndex, check: RecallCheck, wanted: float, found: dict[float, Recall]
) -> tuple[ItemIndex, dict[float, Recall]]:
    """Look at the fewest lists, where no filter is scanned with, that still find what is wanted."""

    def wide(steps: int) -> ItemIndex:
        return replace(index, wide_lists=steps * _WIDE_STEP)

    def enough(steps: int) -> bool:
        return lowest(check.of(wide(steps), wanted, WIDE_SHARES)) >= wanted

    fewer = range(1, math.ceil(index.lists / _WIDE_STEP))
    at = bisect.bisect_left(fewer, True, key=enough)
    if at == len(fewer):
        return index, found
    return wide(fewer[at]), {**found, **check.of(wide(fewer[at]), shares=WIDE_SHARES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedIndex:
    """An index that is searched as far as its recall needs, and what was measured."""

    index: ItemIndex
    k: int
    num_queries: int
    found: Mapping[float, Recall]
    """By share of the items that a filter passes; empty: the index is exact."""

    def summary(self) -> dict[str, Any]:
        """Describe the index for the manifest: nothing of the clock or the host."""
        made = self.index.summary()
        if not self.found:
            return made
        recall = {f"{share:g}": round(one.recall, 4) for share, one in self.found.items()}
        return {**made, "recall": {"k": self.k, "queries": self.num_queries, "by_share": recall}}

    def record(self, build_s: float, file_bytes: int) -> IndexRecord:
        """Describe what the index costs on this host."""
        return IndexRecord(
            kind=self.index.kind,
            items=self.index.embeddings_ID.shape[0],
            build_s=round(build_s, 3),
            file_bytes=file_bytes,
            factor=self.index.factor if self.found else None,
            lists=self.index.lists if self.found else None,
            wide_lists=self.index.unfiltered_lists if self.found else None,
            recall={f"{share:g}": round(one.recall, 4) for share, one in self.found.items()},
            search_ms={f"{share:g}": round(one.search_ms, 3) for share, one in self.found.items()},
        )


def tune_index(
    index: ItemIndex, make_queries: Callable[[], np.ndarray], config: RetrievalConfig
) -> TunedIndex:
    """Tune a compressed index by users' vectors [Q, D]; an exact one finds everything and asks for none.

    Raises: BundleError when it finds less than `index_min_recall` with the largest factor, too.
    """
    k = config.num_candidates
    if index.exact:
        return TunedIndex(index=index, k=k, num_queries=0, found={})
    queries, wanted = make_queries(), config.index_min_recall
    tuned, found = tune(index, RecallCheck(index.embeddings_ID, queries, k), wanted)
    share = min(found, key=lambda share: found[share].recall)
    if found[share].recall < wanted:
        num_items = index.embeddings_ID.shape[0]
        raise BundleError(
            f"the index of {num_items} items finds {found[share].recall:.3f} of the {k} nearest ones, where "
            f"{share:.1%} of the items pass a filter; [retrieval] index_min_recall is {wanted:g}: nothing "
            f"was published. Lower it, or set [retrieval] exact_items = {num_items}: exact search, which "
            "takes longer"
        )
    return TunedIndex(index=tuned, k=k, num_queries=queries.shape[0], found=found)


def lowest(found: Mapping[float, Recall]) -> float:
    """Return the recall of the share with the lowest one."""
    return min(one.recall for one in found.values())


def _filter(num_items: int, share: float) -> Mask | None:
    if share >= 1:
        return None
    allowed = np.random.default_rng(round(1e6 * share)).random((num_items,)) < share
    allowed[:1] |= not allowed.any()
    return Mask.of_bools(allowed)


def _nearest(
    embeddings_ID: np.ndarray, queries_QD: np.ndarray, k: int, allowed: Mask | None
) -> list[np.ndarray]:
    """Search exactly: rows [min(k, allowed)] per query."""
    rows = None if allowed is None else allowed.rows()
    vectors = embeddings_ID if rows is None else embeddings_ID[rows]
    _, found = faiss.knn(queries_QD, vectors, min(k, vectors.shape[0]), metric=faiss.METRIC_INNER_PRODUCT)
    return list(found if rows is None else rows[found])
