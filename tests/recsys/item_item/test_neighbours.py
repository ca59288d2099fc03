"""Scores of one history, of many, and of candidates are one and the same."""

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.item_item import neighbours
from recsys.item_item.ease import build_ease
from recsys.item_item.neighbours import ItemItem, event_matrix
from recsys.item_item.pair_counts import count_pairs
from recsys.item_item.recency import PerStep
from recsys.user_sources import RowScores
from tests.recsys.item_item.shapes import random_histories

ITEMS = 25
HISTORIES = random_histories(seed=1)
WEIGHTS = PerStep(0.8).weights(HISTORIES)


def built() -> ItemItem:
    return build_ease(count_pairs(HISTORIES, ITEMS), 5.0, most=6)


def by_hand(of: ItemItem) -> np.ndarray:
    scores = np.zeros((HISTORIES.num_users, ITEMS))
    for user, item, weight in zip(HISTORIES.users, HISTORIES.items, WEIGHTS, strict=True):
        for other, value in zip(of.neighbours[item], of.weights[item], strict=True):
            scores[user, other] += weight * value if other >= 0 else 0
    return scores


@pytest.mark.parametrize("dense_items", [0, 10**9])
def test_a_history_scores_all_items_that_it_knows(dense_items, monkeypatch):
    monkeypatch.setattr(neighbours, "_DENSE_ITEMS", dense_items)
    of = built()
    expected = by_hand(of)
    for user in range(HISTORIES.num_users):
        part = slice(*HISTORIES.starts[user : user + 2])
        rows, scores = of.scores(HISTORIES.items[part], WEIGHTS[part])
        assert (np.diff(rows) > 0).all()
        assert scores.dtype == np.float32
        whole = np.zeros(ITEMS)
        whole[rows] = scores
        np.testing.assert_allclose(whole, expected[user], atol=1e-5)
        asked = np.array([3, ITEMS + 4, 0, 24, -1])
        values = RowScores(rows, scores).of(asked)
        np.testing.assert_allclose(values[[0, 2, 3]], expected[user][asked[[0, 2, 3]]], atol=1e-5)
        assert values[1] == values[4] == 0


@pytest.mark.parametrize("dense_items", [0, 10**9])
def test_unknown_items_and_no_history_say_nothing(dense_items, monkeypatch):
    monkeypatch.setattr(neighbours, "_DENSE_ITEMS", dense_items)
    for rows in ([], [-1, ITEMS]):
        found, scores = built().scores(np.array(rows, np.int64), np.ones(len(rows)))
        assert found.size == scores.size == 0
        assert RowScores(found, scores).of(np.array([1, 2])).tolist() == [0, 0]


def test_many_users_score_as_each_alone():
    of = built()
    found = (event_matrix(HISTORIES, WEIGHTS, ITEMS) @ of.matrix()).toarray()
    np.testing.assert_allclose(found, by_hand(of), atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "weights", "named"),
    [
        (np.zeros((2, 3), np.int32), np.zeros((2, 2), np.float32), r"both are \[I, K\]"),
        (np.zeros((2, 2)), np.zeros((2, 2), np.float32), "must be int32 and float32"),
        (np.full((2, 2), 2, np.int32), np.zeros((2, 2), np.float32), "holds 2; items are 0 to 1"),
        (np.full((2, 2), -2, np.int32), np.zeros((2, 2), np.float32), "holds -2; items are 0 to 1"),
    ],
)
def test_neighbours_that_do_not_fit_are_refused(rows, weights, named):
    with pytest.raises(DataError, match=named):
        ItemItem(neighbours=rows, weights=weights)
