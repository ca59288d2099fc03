"""The index finds the nearest allowed items, as many as there are, and never a forbidden one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import index as module
from recsys.errors import BundleError
from recsys.index import ItemIndex
from recsys.mask import Mask


def _vectors(count, dim=8, seed=0):
    made = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(params=["exact", "hnsw32"])
def index(request, monkeypatch):
    if request.param == "hnsw32":
        monkeypatch.setattr(module, "EXACT_LIMIT", 100)
    made = ItemIndex.build(_vectors(2000))
    assert made.kind == request.param
    return made


def _plain(index, query, k, allowed):
    rows = np.flatnonzero(allowed)
    return rows[np.argsort(-(index.embeddings_ID[rows] @ query), kind="stable")][:k]


def test_the_first_is_the_nearest(index):
    for row in (0, 7, 1999):
        assert index.search(index.embeddings_ID[row], 3, None)[0] == row


@pytest.mark.parametrize("passing", [0, 1, 5, 40, 199, 201, 1000, 2000])
def test_filtered_search_is_full_allowed_and_near(index, passing):
    rng = np.random.default_rng(passing)
    allowed = np.zeros(2000, bool)
    allowed[rng.permutation(2000)[:passing]] = True
    query = _vectors(1, seed=9)[0]
    rows = index.search(query, 50, Mask.of_bools(allowed))
    assert rows.size == min(50, passing), "never under-filled"
    assert allowed[rows].all(), "never a forbidden item"
    assert np.unique(rows).size == rows.size
    scores = index.embeddings_ID[rows] @ query
    assert (np.diff(scores) <= 1e-6).all(), "best first"
    wanted = _plain(index, query, 50, allowed)
    assert np.isin(wanted, rows).sum() >= 0.95 * wanted.size
    if index.kind == "exact":
        np.testing.assert_allclose(np.sort(index.embeddings_ID[wanted] @ query), np.sort(scores), atol=1e-6)


def test_more_than_there_are(index):
    assert index.search(_vectors(1)[0], 10**6, None).size == 2000


def test_the_index_finds_what_exact_search_finds(index):
    found = []
    for query in _vectors(20, seed=3):
        exact = np.argsort(-index.embeddings_ID @ query)[:10]
        found.append(np.isin(exact, index.search(query, 10, None)).mean())
    assert np.mean(found) > 0.9


def test_a_round_trip(index, tmp_path):
    index.save(tmp_path / "index.faiss")
    loaded = ItemIndex.load(tmp_path / "index.faiss", index.embeddings_ID)
    assert loaded.kind == index.kind
    query = _vectors(1, seed=4)[0]
    np.testing.assert_array_equal(loaded.search(query, 20, None), index.search(query, 20, None))


def test_a_file_that_does_not_hold_these_vectors(index, tmp_path):
    index.save(tmp_path / "index.faiss")
    with pytest.raises(BundleError, match="2000 vectors of 8 dimensions"):
        ItemIndex.load(tmp_path / "index.faiss", index.embeddings_ID[:-1])
    (tmp_path / "index.faiss").write_bytes(b"no index")
    with pytest.raises(BundleError, match="not a FAISS index"):
        ItemIndex.load(tmp_path / "index.faiss", index.embeddings_ID)


SMALL = ItemIndex.build(_vectors(30))


@given(mask=st.lists(st.booleans(), min_size=30, max_size=30), k=st.integers(1, 40))
def test_exact_search_is_the_plain_rule(mask, k):
    allowed = np.array(mask)
    query = _vectors(1, seed=5)[0]
    np.testing.assert_array_equal(
        SMALL.search(query, k, Mask.of_bools(allowed)), _plain(SMALL, query, k, allowed)
    )
