"""The index finds the nearest allowed items, as many as there are, never a forbidden one; on every device."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import BundleError, ConfigError
from recsys.gpu_index import MAX_FOUND
from recsys.index import Cutover, ItemIndex
from recsys.mask import Mask

GPU = torch.device("cuda", 0)


def _vectors(count, dim=8, seed=0):
    made = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(params=["exact", "ivf2,pq8x4fs"])
def built(request):
    made = ItemIndex.build(_vectors(2500), exact_items=3000 if request.param == "exact" else 2000)
    assert made.kind == request.param
    return replace(made, factor=2)


@pytest.fixture(params=["cpu", "gpu"])
def index(request, built):
    """Give every kind on every device."""
    if request.param == "cpu":
        return built
    request.getfixturevalue("faiss_gpu")
    return built.on(GPU)


def _plain(index, query, k, allowed):
    rows = np.flatnonzero(allowed)
    return rows[np.argsort(-(index.embeddings_ID[rows] @ query), kind="stable")][:k]


def test_the_first_is_the_nearest(index):
    for row in (0, 7, 2499):
        assert index.search(index.embeddings_ID[row], 3, None)[0] == row


@pytest.mark.parametrize("passing", [0, 1, 5, 40, 199, 201, 1000, 2500])
def test_filtered_search_is_full_allowed_and_near(index, passing):
    rng = np.random.default_rng(passing)
    allowed = np.zeros(2500, bool)
    allowed[rng.permutation(2500)[:passing]] = True
    query = _vectors(1, seed=9)[0]
    rows = index.search(query, 50, Mask.of_bools(allowed))
    assert rows.size == min(50, passing), "never under-filled"
    assert allowed[rows].all(), "never a forbidden item"
    assert np.unique(rows).size == rows.size
    scores = index.embeddings_ID[rows] @ query
    assert (np.diff(scores) <= 1e-6).all(), "best first"
    wanted = _plain(index, query, 50, allowed)
    assert np.isin(wanted, rows).sum() >= 0.95 * wanted.size
    if index.exact or index.on_gpu is not None:
        np.testing.assert_allclose(np.sort(index.embeddings_ID[wanted] @ query), np.sort(scores), atol=1e-6)


def test_more_than_there_are(index):
    assert index.search(_vectors(1)[0], 10**6, None).size == 2500


def test_the_index_finds_what_exact_search_finds(index):
    found = []
    for query in _vectors(20, seed=3):
        exact = np.argsort(-index.embeddings_ID @ query)[:10]
        found.append(np.isin(exact, index.search(query, 10, None)).mean())
    assert np.mean(found) > 0.9


def test_a_round_trip(index, tmp_path):
    """Also of an index on the GPU: what is written is the processor's."""
    index.save(tmp_path / "index.faiss")
    loaded = ItemIndex.load(tmp_path / "index.faiss", index.embeddings_ID)
    loaded = loaded if index.on_gpu is None else loaded.on(GPU)
    assert loaded.kind == index.kind
    query = _vectors(1, seed=4)[0]
    np.testing.assert_array_equal(loaded.search(query, 20, None), index.search(query, 20, None))


def test_a_graph_of_an_earlier_release_is_searched(tmp_path):
    vectors = _vectors(1200)
    graph = faiss.IndexHNSWFlat(8, 4, faiss.METRIC_INNER_PRODUCT)
    graph.add(vectors)
    faiss.write_index(graph, str(tmp_path / "index.faiss"))
    loaded = ItemIndex.load(tmp_path / "index.faiss", vectors)
    assert loaded.kind == "exact"
    assert loaded.search(vectors[7], 1, None).tolist() == [7]


def test_a_file_that_does_not_hold_these_vectors(built, tmp_path):
    index = built
    index.save(tmp_path / "index.faiss")
    with pytest.raises(BundleError, match="2500 vectors of 8 dimensions"):
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


# --- on a GPU


def _mask(rows):
    mask = np.zeros(2500, bool)
    mask[rows] = True
    return mask


def test_an_exact_search_on_a_gpu_is_the_processors(built, faiss_gpu):
    there = built.on(GPU)
    for seed, share in enumerate((1.0, 0.9, 0.5, 0.2)):
        query, rng = _vectors(1, seed=seed)[0], np.random.default_rng(seed)
        allowed = None if share == 1.0 else rng.random(2500) < share
        wanted = _plain(built, query, 40, np.ones(2500, bool) if allowed is None else allowed)
        np.testing.assert_array_equal(
            there.search(query, 40, None if allowed is None else Mask.of_bools(allowed)), wanted
        )
    assert len(faiss_gpu[0].asked) == 4, "each was one search on the GPU"


def test_a_filter_that_forbids_the_nearest_goes_to_the_processor(built, faiss_gpu):
    """Half of the items pass, but not one of those that a GPU would find first."""
    query = _vectors(1, seed=3)[0]
    order = np.argsort(-(built.embeddings_ID @ query))
    allowed = _mask(order[1250:])
    rows = built.on(GPU).search(query, 50, Mask.of_bools(allowed))
    assert len(faiss_gpu[0].asked) == 1
    assert rows.size == 50
    assert allowed[rows].all()


@pytest.mark.parametrize(
    ("k", "passing", "asks"), [(MAX_FOUND, 2500, True), (MAX_FOUND + 1, 2500, False), (100, 100, False)]
)
def test_what_a_gpu_cannot_find_at_once_goes_to_the_processor(built, faiss_gpu, k, passing, asks):
    rows = built.on(GPU).search(_vectors(1, seed=4)[0], k, Mask.of_bools(_mask(np.arange(passing))))
    assert rows.size == k
    assert bool(faiss_gpu[0].asked) is asks


def test_threads_take_turns_on_a_gpu(built, faiss_gpu):
    there, queries = built.on(GPU), _vectors(40, seed=6)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda query: there.search(query, 5, None)[0], queries))
    wanted = [np.argmax(built.embeddings_ID @ query) for query in queries]
    assert found == wanted


def test_without_faiss_for_cuda_the_error_has_the_remedy(built):
    with pytest.raises(
        ConfigError, match=r"on cuda:0: faiss 1\.\S+ is built without CUDA; install faiss-gpu"
    ):
        built.on(GPU)


def test_without_a_gpu_the_error_has_the_remedy(built, faiss_gpu, monkeypatch):
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(ConfigError, match="finds no GPU; check that `nvidia-smi`"):
        built.on(GPU)


def test_vectors_that_a_gpu_has_no_room_for(built, faiss_gpu, monkeypatch):
    def full(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", full)
    with pytest.raises(
        ConfigError, match=r"2500 item vectors of 8 .*out of memory; free memory on it, or set"
    ):
        built.on(GPU)


@pytest.mark.gpu
def test_on_a_gpu_faiss_finds_what_it_finds_on_the_processor(built):
    """The stand-in above says what FAISS does; this asks FAISS itself."""
    there, query = built.on(GPU), _vectors(1, seed=2)[0]
    np.testing.assert_array_equal(
        there.search(query, 50, None), _plain(built, query, 50, np.ones(2500, bool))
    )
    every = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(np.zeros(313, np.uint8)))
    ignored = there.on_gpu._index.search(query[None], 1, params=every)[1]
    assert ignored[0, 0] >= 0, "a selector that forbids all is passed over"


# --- compressed


@pytest.fixture(scope="module")
def large():
    """Give vectors of 20,000 items and their index."""
    vectors = _vectors(20_000, dim=16)
    return ItemIndex.build(vectors, exact_items=0)


def _bytes(index):
    return faiss.serialize_index(index.index).tobytes()


def test_the_same_vectors_give_the_same_bytes(large):
    """With any number of threads; the random state of FAISS is not read either."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        again = ItemIndex.build(large.embeddings_ID.copy(), exact_items=0)
        assert faiss.omp_get_max_threads() == 2, "the caller's number stays"
    finally:
        faiss.omp_set_num_threads(before)
    assert _bytes(again) == _bytes(large)


@pytest.mark.parametrize("kind", ["exact", "compressed"])
def test_a_mapped_index_finds_the_same_and_is_not_read_into_memory(large, tmp_path, kind):
    made = large if kind == "compressed" else ItemIndex.build(large.embeddings_ID)
    made.save(tmp_path / "index.faiss")
    np.save(tmp_path / "vectors.npy", made.embeddings_ID)
    vectors = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    mapped = ItemIndex.load(tmp_path / "index.faiss", vectors, mapped=True)
    with open("/proc/self/maps") as maps:
        assert str(tmp_path / "index.faiss") in maps.read()
    assert np.shares_memory(mapped.embeddings_ID, vectors)
    query, allowed = _vectors(1, dim=16, seed=4)[0], Mask.of_bools(np.arange(20_000) % 3 > 0)
    for wanted in (None, allowed):
        np.testing.assert_array_equal(mapped.search(query, 50, wanted), made.search(query, 50, wanted))


WAYS = {
    "exact": Cutover(exact_share=1.0),
    "filtered while scanning": Cutover(exact_share=0.0, most_fetched=0.0),
    "filtered afterwards": Cutover(exact_share=0.0, most_fetched=1e9),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_each_way_of_a_filtered_search_finds_the_nearest(large, way, share):
    index = replace(large, cutover=WAYS[way], factor=12)
    drawn = np.random.default_rng(1).random(20_000) < share
    found = []
    for query in _vectors(10, dim=16, seed=2):
        rows = index.search(query, 40, Mask.of_bools(drawn))
        assert (rows.size, np.unique(rows).size) == (40, 40)
        assert drawn[rows].all()
        found.append(np.isin(_plain(index, query, 40, drawn), rows).mean())
    assert np.mean(found) >= (1.0 if way == "exact" else 0.95)


@pytest.mark.parametrize("lists", [0.05, 1.0])
@pytest.mark.parametrize("way", WAYS)
def test_a_filter_against_the_users_taste_is_no_hole(large, way, lists):
    """Half of the items pass, but none of those that a search would find first."""
    index = replace(large, cutover=WAYS[way], lists=lists, factor=3)
    query = _vectors(1, dim=16, seed=3)[0]
    drawn = large.embeddings_ID @ query < 0
    rows = index.search(query, 300, Mask.of_bools(drawn))
    assert rows.size == 300
    assert drawn[rows].all()
    everywhere = replace(index, lists=1.0).search(query, 300, Mask.of_bools(drawn))
    np.testing.assert_array_equal(rows, everywhere)


def test_items_that_faiss_does_not_find_are_searched_exactly(large, monkeypatch):
    """Never under-filled, whatever a scan of compressed items brings."""
    monkeypatch.setattr(
        faiss.IndexPreTransform, "search", lambda _, query, k, params: (None, np.full((1, k), -1))
    )
    query, allowed = _vectors(1, dim=16, seed=7)[0], np.arange(20_000) % 2 > 0
    np.testing.assert_array_equal(
        large.search(query, 40, Mask.of_bools(allowed)), _plain(large, query, 40, allowed)
    )


def test_a_search_takes_one_thread(large):
    """In a thread that FAISS has not met yet: it would begin helpers there."""

    def helpers():
        before = len(os.listdir("/proc/self/task"))
        for allowed in (None, Mask.of_bools(np.arange(20_000) % 2 > 0)):
            for index in (large, exact):
                index.search(query, 100, allowed)
        return len(os.listdir("/proc/self/task")) - before

    exact, query = ItemIndex.build(large.embeddings_ID), _vectors(1, dim=16, seed=5)[0]
    before = faiss.omp_get_max_threads()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(faiss.omp_set_num_threads, 2).result()
        assert pool.submit(helpers).result() == 0
    assert faiss.omp_get_max_threads() == before
