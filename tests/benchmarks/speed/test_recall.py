"""The recall and the fuzz of searches that `recsys bench serve` reports, small."""

import numpy as np
import pytest

from benchmarks.speed.serve.recall import (
    VECTORS,
    Fuzzed,
    forbidden_ids,
    item_tower_vectors,
    measure,
    recall_by_selectivity,
)
from recsys.index import ItemIndex
from recsys.mask import Mask


@pytest.mark.parametrize("vectors", VECTORS)
def test_the_figures_of_an_index(vectors):
    found = measure(vectors, 5_000, 16, 50, 0.95, num_queries=4)
    assert (found["items"], found["dim"], found["k"]) == (5_000, 16, 50)
    assert list(found["by_share"]) == ["1", "0.5", "0.1", "0.01", "0.001"]
    assert min(one["recall"] for one in found["by_share"].values()) > 0.9


def test_recall_counts_what_is_missing():
    vectors = item_tower_vectors(3_000, 8)
    index = ItemIndex.build(np.ascontiguousarray(vectors[::-1]))
    index.embeddings_ID[:] = vectors  # as if the file held other items in other places
    assert recall_by_selectivity(index, vectors[:8], 20)["1"]["recall"] < 0.5


def test_random_searches_find_no_forbidden_item():
    assert forbidden_ids(300, seed=1) == Fuzzed(searches=300, forbidden=0, under_filled=0)


@pytest.mark.slow
def test_ten_thousand_random_searches():
    assert forbidden_ids(10_000) == Fuzzed(searches=10_000, forbidden=0, under_filled=0)


def test_a_search_that_breaks_its_filter_is_counted(monkeypatch):
    def disobedient(self, vector_D, k, allowed):
        return np.arange(min(k, self.embeddings_ID.shape[0]))

    monkeypatch.setattr(ItemIndex, "search", disobedient)
    assert forbidden_ids(100).forbidden > 0


def test_a_search_that_finds_too_few_is_counted(monkeypatch):
    def lazy(self, vector_D, k, allowed):
        mask = Mask.full(self.embeddings_ID.shape[0]) if allowed is None else allowed
        return mask.first(min(k, mask.count) // 2)

    monkeypatch.setattr(ItemIndex, "search", lazy)
    found = forbidden_ids(100)
    assert found.forbidden == 0
    assert found.under_filled > 0
