"""What an index finds: recall by selectivity of the filter, and searches that find a forbidden item.

`python -m benchmarks.speed.serve.recall` prints both for synthetic vectors: a catalogue like an item tower's
(clusters of Zipf sizes, a spectrum that falls), or plain Gaussian ones.
"""

import argparse
import functools
import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from recsys.index import Cutover, ItemIndex
from recsys.index_costs import with_measured_cutover
from recsys.index_recall import SHARES, RecallCheck, tune
from recsys.mask import Mask

MOST_ITEMS = 20_000
_SEARCHES_EACH = 100
"""Searches of one random catalogue."""
_NUM_CLUSTERS, _SPREAD = 2_000, 0.6


def recall_by_selectivity(
    index: ItemIndex, queries_QD: np.ndarray, k: int = 500, shares: Sequence[float] = SHARES
) -> dict[str, dict[str, float]]:
    """Search with random filters; by share of the items that pass: `recall` of the k nearest, `search_ms`.

    Times are processor time of one thread.
    """
    found = RecallCheck(index.embeddings_ID, queries_QD, k, shares).of(index)
    return {f"{share:g}": asdict(one) for share, one in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzed:
    """What random searches found."""

    searches: int
    forbidden: int
    """Items found that the filter forbids."""
    under_filled: int
    """Searches that found fewer items than asked for while enough pass, or one twice."""


def forbidden_ids(num_searches: int = 10_000, seed: int = 0) -> Fuzzed:
    """Search catalogues of 0 to 20,000 items with random filters: of none, one, few, most and all items.

    Both kinds of index, each way of a filtered search, and k from 1 to more than there are.
    """
    rng = np.random.default_rng(seed)
    forbidden = under_filled = 0
    for start in range(0, num_searches, _SEARCHES_EACH):
        index = _random_index(rng)
        for _ in range(min(_SEARCHES_EACH, num_searches - start)):
            index = replace(index, cutover=_random_cutover(rng), factor=int(rng.integers(1, 9)))
            index = replace(index, lists=float(rng.choice([0.125, 1.0])))
            rows, allowed, k = _random_search(index, rng)
            forbidden += int((~allowed[rows]).sum())
            under_filled += np.unique(rows).size != min(k, allowed.count)
    return Fuzzed(searches=num_searches, forbidden=forbidden, under_filled=under_filled)


def item_tower_vectors(num_items: int, dim: int, seed: int = 0) -> np.ndarray:
    """Draw unit vectors [I, D] in clusters of Zipf sizes whose spectrum falls, as a tower's do.

    Users are drawn likewise, with another seed.
    """
    rng = np.random.default_rng(seed)
    scale, centres = _clusters(dim)
    share = 1 / np.arange(1, _NUM_CLUSTERS + 1) ** 0.8
    vectors = centres[rng.choice(_NUM_CLUSTERS, num_items, p=share / share.sum())]
    vectors += _SPREAD * scale * rng.standard_normal(size=vectors.shape, dtype=np.float32)
    return _unit(vectors)


def gaussian_vectors(num_items: int, dim: int, seed: int = 0) -> np.ndarray:
    """Draw unit vectors [I, D] in all directions alike."""
    return _unit(np.random.default_rng(seed).standard_normal(size=(num_items, dim), dtype=np.float32))


VECTORS = {"tower": item_tower_vectors, "gaussian": gaussian_vectors}


def measure(
    vectors: str, num_items: int, dim: int, k: int, wanted: float, num_queries: int = 128
) -> dict[str, object]:
    """Build and tune an index of synthetic vectors; returns its costs and what it finds for other users."""
    made = VECTORS[vectors](num_items, dim)
    start = time.process_time()
    index = ItemIndex.build(made, exact_items=0)
    build_s = time.process_time() - start
    queries = VECTORS[vectors](2 * num_queries, dim, seed=1)
    start = time.process_time()
    index, _ = tune(index, RecallCheck(made, queries[:num_queries], k), wanted)
    tune_s = time.process_time() - start
    start = time.process_time()
    index = with_measured_cutover(index, k)
    return {
        "vectors": vectors,
        "items": num_items,
        "dim": dim,
        "kind": index.kind,
        "factor": index.factor,
        "lists": index.lists,
        "build_s": round(build_s, 2),
        "tune_s": round(tune_s, 2),
        "file_mb": round(_file_bytes(index) / 1e6, 1),
        "cutover": asdict(index.cutover),
        "cutover_s": round(time.process_time() - start, 3),
        "k": k,
        "by_share": recall_by_selectivity(index, queries[num_queries:], k),
    }


@functools.cache
def _clusters(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the scale of each dimension [D] and the clusters' centres [C, D], the same for items and users."""
    scale = 1 / np.sqrt(np.arange(1, dim + 1, dtype=np.float32))
    drawn = np.random.default_rng(12_345).standard_normal(size=(_NUM_CLUSTERS, dim), dtype=np.float32)
    return scale, drawn * scale


def _random_index(rng: np.random.Generator) -> ItemIndex:
    size = min(MOST_ITEMS, math.floor(math.exp(rng.uniform(0, math.log(MOST_ITEMS + 2)))) - 1)
    return ItemIndex.build(item_tower_vectors(size, 8, seed=int(rng.integers(1 << 30))), exact_items=1_000)


def _random_cutover(rng: np.random.Generator) -> Cutover:
    return Cutover(
        exact_share=float(rng.choice([0.0, 0.01, 0.2])), most_fetched=float(rng.choice([0.0, 4.0, 1e6]))
    )


def _random_search(index: ItemIndex, rng: np.random.Generator) -> tuple[np.ndarray, Mask, int]:
    """Search once; returns what was found, the filter, and k."""
    size = index.embeddings_ID.shape[0]
    query = item_tower_vectors(1, 8, seed=int(rng.integers(1 << 30)))[0]
    allowed = _random_filter(index, query, rng)
    k = int(rng.integers(1, 2 + 2 ** int(rng.integers(1, 12))))
    return index.search(query, k, allowed if allowed.count < size or rng.random() < 0.5 else None), allowed, k


def _random_filter(index: ItemIndex, query_D: np.ndarray, rng: np.random.Generator) -> Mask:
    size = index.embeddings_ID.shape[0]
    passing: np.ndarray
    match int(rng.integers(6)):
        case 0:
            passing = np.zeros(size, np.bool_)
        case 1:
            passing = np.ones(size, np.bool_)
        case 2:
            passing = np.isin(np.arange(size), rng.integers(max(1, size)))
        case 3:  # against the user's taste: what is near passes last
            passing = np.less(index.embeddings_ID @ query_D, rng.uniform(-0.2, 0.5))
        case 4:
            passing = np.arange(size) < rng.integers(size + 1)
        case _:
            passing = rng.random((size,)) < rng.random()
    return Mask.of_bools(passing)


def _file_bytes(index: ItemIndex) -> int:
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "index.faiss")
        return os.path.getsize(Path(folder) / "index.faiss")


def _unit(vectors_ID: np.ndarray) -> np.ndarray:
    vectors_ID /= np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    return vectors_ID


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", choices=tuple(VECTORS), default="tower")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("-k", type=int, default=500, help="Items found by a search.")
    parser.add_argument("--wanted", type=float, default=0.95, help="Recall that the index is tuned to.")
    parser.add_argument("--searches", type=int, default=10_000, help="Random searches of random catalogues.")
    asked = parser.parse_args()
    found = measure(asked.vectors, asked.items, asked.dim, asked.k, asked.wanted)
    print(json.dumps({**found, "fuzzed": asdict(forbidden_ids(asked.searches))}, indent=1))


if __name__ == "__main__":
    main()
