"""EASE and item-kNN against their definitions, and counts that add up."""

import numpy as np
import pytest
from scipy import sparse

from recsys.errors import ConfigError
from recsys.item_item import ease, pair_counts
from recsys.item_item.ease import build_ease, build_ease_of_users, ease_weights
from recsys.item_item.histories import Histories
from recsys.item_item.knn import build_item_knn, build_item_knn_of_counts
from recsys.item_item.pair_counts import count_pairs, gram_of
from tests.recsys.item_item.shapes import random_histories

ITEMS = 25


def dense(of: Histories) -> np.ndarray:
    return of.matrix(ITEMS).toarray().astype(np.float64)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_ease_is_the_best_prediction_of_each_item_from_the_others(precision):
    of, penalty = random_histories(), 5.0
    users = dense(of)
    found = ease_weights(count_pairs(of, ITEMS), penalty, precision)
    assert found.dtype == precision
    for j in range(ITEMS):
        others = np.delete(np.arange(ITEMS), j)
        part = users[:, others]
        ridge = np.linalg.solve(part.T @ part + penalty * np.eye(ITEMS - 1), part.T @ users[:, j])
        np.testing.assert_allclose(found[others, j], ridge, atol=1e-4)
        assert found[j, j] == 0


def test_ease_mirrors_across_blocks(monkeypatch):
    counts = count_pairs(random_histories(), ITEMS)
    whole = ease_weights(counts, 5.0)
    monkeypatch.setattr("recsys.item_item.ease._ROWS_AT_ONCE", 4)
    np.testing.assert_allclose(ease_weights(counts, 5.0), whole, atol=1e-6)
    np.testing.assert_allclose(build_ease(counts, 5.0).matrix().toarray(), whole, atol=1e-6)


def test_the_cut_keeps_the_weights_furthest_from_0():
    counts = count_pairs(random_histories(), ITEMS)
    whole, cut = ease_weights(counts, 5.0), build_ease(counts, 5.0, most=4)
    assert cut.neighbours.shape == (ITEMS, 4)
    for row, neighbours, weights in zip(whole, cut.neighbours, cut.weights, strict=True):
        best = np.sort(np.abs(row))[-4:]
        np.testing.assert_allclose(np.sort(np.abs(weights)), best, rtol=1e-6)
        np.testing.assert_array_equal(row[neighbours], weights)


@pytest.mark.parametrize("by_users", [False, True])
def test_a_positive_cut_keeps_the_largest_weights_above_0(by_users):
    have = random_histories().matrix(ITEMS)
    have.data[:] = 1
    whole = ease_weights(gram_of(have), 5.0, "float64")
    build = build_ease_of_users if by_users else lambda m, p, **how: build_ease(gram_of(m), p, **how)
    cut = build(have, 5.0, most=20, positive=True)
    assert (np.sort(whole, axis=1)[:, -20] < 0).any(), "some items have fewer such weights than places"
    assert (whole < 0).any()
    for row, neighbours, weights in zip(whole, cut.neighbours, cut.weights, strict=True):
        best = np.maximum(np.sort(row)[-20:], 0)
        np.testing.assert_allclose(np.sort(weights), best, atol=1e-5)
        np.testing.assert_array_equal(neighbours >= 0, weights > 0)


def test_a_penalty_without_an_inverse_is_refused():
    never_met = count_pairs(random_histories(), ITEMS + 1)
    with pytest.raises(ConfigError, match="penalty 0: the matrix has no inverse"):
        build_ease(never_met, 0.0)


def test_a_catalogue_too_large_for_ease_is_refused(monkeypatch):
    matrix = random_histories().matrix(ITEMS)
    monkeypatch.setattr("recsys.item_item.ease.MOST_ITEMS", ITEMS - 1)
    with pytest.raises(ConfigError, match=f"EASE of {ITEMS} items: it is for at most 24"):
        build_ease(gram_of(matrix), 1.0)


@pytest.mark.parametrize("at_once", [1, 50, 10**9])
def test_item_knn_is_the_shrunk_cosine_in_blocks_of_any_size(at_once, monkeypatch):
    monkeypatch.setattr(pair_counts, "PRODUCTS_AT_ONCE", at_once)
    of = random_histories(num_items=ITEMS)
    users = dense(of)
    norms = np.sqrt(users.sum(axis=0))
    cosines = users.T @ users / (np.outer(norms, norms) + 10)
    np.fill_diagonal(cosines, 0)
    found = build_item_knn(of.matrix(ITEMS), most=ITEMS).matrix().toarray()
    np.testing.assert_allclose(found, cosines, atol=1e-6)
    cut = build_item_knn_of_counts(count_pairs(of, ITEMS), most=3)
    assert np.sort(cut.weights.sum(axis=1)) == pytest.approx(np.sort(np.sort(cosines)[:, -3:].sum(axis=1)))


def test_an_item_that_nobody_has_has_no_neighbours(monkeypatch):
    monkeypatch.setattr(pair_counts, "PRODUCTS_AT_ONCE", 1)
    of = Histories.of(np.array([0, 0, 1]), np.array([1, 3, 3]), num_users=2)
    found = build_item_knn(of.matrix(6), shrinkage=0.0, most=2)
    assert (found.neighbours >= 0).sum(axis=1).tolist() == [0, 1, 0, 1, 0, 0]


def test_counts_add_up_over_users():
    of = random_histories(timed=True)
    whole = count_pairs(of, ITEMS)
    assert whole.dtype == np.int32
    np.testing.assert_array_equal(whole.toarray(), dense(of).T @ dense(of))
    shares = [count_pairs(of.take(np.arange(start, of.num_users, 3)), ITEMS) for start in range(3)]
    np.testing.assert_array_equal(sum(shares).toarray(), whole.toarray())


@pytest.mark.parametrize("rows", [3, 512])
def test_a_system_of_the_users_gives_the_weights_of_the_items_one(monkeypatch, rows):
    monkeypatch.setattr(ease, "_ROWS_AT_ONCE", rows)
    have = sparse.csr_matrix(np.random.default_rng(0).random((6, 20)) < 0.3, dtype=np.float32)
    by_items = build_ease(gram_of(have), 2.0, precision="float64").matrix().toarray()
    by_users = build_ease_of_users(have, 2.0).matrix().toarray()
    np.testing.assert_allclose(by_users, by_items, atol=1e-6)
