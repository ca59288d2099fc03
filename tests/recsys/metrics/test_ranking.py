"""Ranking metrics: hand-worked numbers, sklearn as oracle for NDCG, sets as oracle for recall."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from recsys.errors import ConfigError, DataError
from recsys.metrics.ranking import (
    category_diversity,
    coverage,
    match,
    ndcg_at_k,
    novelty,
    recall_at_k,
)

NUM_ITEMS = 12


@st.composite
def lists(draw):
    """Draw ranked [U, 5] padded with -1, and each user's relevant items."""
    items = st.lists(st.integers(0, NUM_ITEMS - 1), unique=True, max_size=8)
    users = draw(st.lists(st.tuples(items, items), min_size=1, max_size=6))
    ranked = [(listed[:5] + [-1] * 5)[:5] for listed, _ in users]
    return np.array(ranked), [relevant for _, relevant in users]


def ragged(relevant):
    offsets = np.cumsum([0, *map(len, relevant)])
    return offsets, np.array([code for codes in relevant for code in codes], dtype=np.int64)


def test_ndcg_and_recall_by_hand():
    ranked = [[4, 0, 9], [1, 2, 3], [5, -1, -1]]
    matches = match(ranked, *ragged([[4, 9, 7, 8], [3], []]))
    hits = 1 + 1 / math.log2(4)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    np.testing.assert_allclose(ndcg_at_k(matches, 3), [hits / ideal, 0.5, np.nan])
    np.testing.assert_allclose(ndcg_at_k(matches, 1), [1, 0, np.nan])
    np.testing.assert_allclose(recall_at_k(matches, 3), [2 / 4, 1, np.nan])
    np.testing.assert_allclose(recall_at_k(matches, 2), [1 / 4, 0, np.nan])


@given(lists(), st.integers(1, 5))
def test_recall_is_the_share_of_relevant_items_listed(drawn, k):
    ranked, relevant = drawn
    found = recall_at_k(match(ranked, *ragged(relevant)), k)
    for listed, wanted, value in zip(ranked, relevant, found, strict=True):
        expected = len(set(listed[:k]) & set(wanted)) / len(wanted) if wanted else math.nan
        assert value == pytest.approx(expected, nan_ok=True)


@given(lists(), st.integers(1, 5))
def test_ndcg_agrees_with_sklearn(drawn, k):
    ranked, relevant = drawn
    found = ndcg_at_k(match(ranked, *ragged(relevant)), k)
    for listed, wanted, value in zip(ranked, relevant, found, strict=True):
        # Unlisted items follow in the order that finds nothing, so that only listed ones can gain.
        gain, score = np.zeros(NUM_ITEMS + 5), np.zeros(NUM_ITEMS + 5)
        gain[wanted] = 1
        score[NUM_ITEMS:] = np.linspace(-0.1, -0.5, 5)
        score[:NUM_ITEMS] = -1
        for place, item in enumerate(listed[listed >= 0]):
            score[item] = 9 - place
        expected = ndcg_score([gain], [score], k=k) if wanted else math.nan
        assert value == pytest.approx(expected, nan_ok=True)


@given(lists())
def test_ideal_list_scores_one(drawn):
    _, relevant = drawn
    ranked = np.array([(wanted[:5] + [-1] * 5)[:5] for wanted in relevant])
    found = ndcg_at_k(match(ranked, *ragged(relevant)), 5)
    np.testing.assert_allclose(found, [1 if wanted else np.nan for wanted in relevant])


def test_coverage_by_hand():
    ranked = np.array([[1, 2, -1], [2, 3, 9]])
    assert coverage(ranked, 10) == 4 / 10
    assert coverage(ranked[:, :1], 10) == 2 / 10
    assert coverage([[-1, -1]], 10) == 0


def test_novelty_by_hand():
    # with one added to each: shares 4/8, 2/8, 1/8, 1/8
    found = novelty([[0, 1], [3, -1], [-1, -1]], [3, 1, 0, 0])
    np.testing.assert_allclose(found, [(1 + 2) / 2, 3, np.nan])


def test_category_diversity_by_hand():
    category = [0, 0, 1, 2]
    ranked = [[0, 1, 2, 3], [0, 1, -1, -1], [2, 3, -1, -1], [0, -1, -1, -1]]
    np.testing.assert_allclose(category_diversity(ranked, category), [5 / 6, 0, 1, np.nan])


@given(lists(), st.lists(st.integers(0, 3), min_size=NUM_ITEMS, max_size=NUM_ITEMS))
def test_category_diversity_counts_pairs(drawn, category):
    ranked, _ = drawn
    for listed, value in zip(ranked, category_diversity(ranked, category), strict=True):
        kinds = [category[item] for item in listed if item >= 0]
        pairs = [a != b for i, a in enumerate(kinds) for b in kinds[:i]]
        assert value == pytest.approx(np.mean(pairs) if pairs else math.nan, nan_ok=True)


@pytest.mark.parametrize("k", [0, -1, 4])
@pytest.mark.parametrize("metric", [ndcg_at_k, recall_at_k])
def test_k_past_the_list_is_a_config_error(metric, k):
    with pytest.raises(ConfigError, match=f"k is {k} but lists have 3 places"):
        metric(match([[1, 2, 3]], [0, 1], [2]), k)


@pytest.mark.parametrize(
    ("ranked", "offsets", "codes", "message"),
    [
        ([[1, 1], [0, 2]], [0, 0, 0], [], "ranked items of user 0 hold item 1 twice"),
        ([[1, 0], [0, 2]], [0, 0, 2], [5, 5], "relevant items of user 1 hold item 5 twice"),
        ([[1, 0], [0, -2]], [0, 0, 0], [], "ranked of user 1 has -2"),
        ([[1, 0], [0, 2]], [0, 1], [5], "offsets has shape"),
        ([[1, 0], [0, 2]], [0, 1, 3], [5], "offsets must rise from 0 to 1"),
        ([[1, 0], [0, 2]], [0, 2, 1], [5], "offsets must rise"),
        ([[1, 0], [0, 2]], [0, 0, 1], [-1], "relevant item at 0 is -1"),
        ([1, 0], [0, 0], [], "pass whole item numbers"),
        ([[0.5]], [0, 0], [], "pass whole item numbers"),
    ],
)
def test_ill_formed_lists_are_refused(ranked, offsets, codes, message):
    with pytest.raises(DataError, match=message):
        match(ranked, offsets, codes)


def test_items_outside_the_tables_are_refused():
    with pytest.raises(DataError, match="popularity ends at 1"):
        novelty([[2]], [3, 1])
    with pytest.raises(DataError, match="category ends at 1"):
        category_diversity([[2]], [0, 1])
    with pytest.raises(DataError, match="item 1 is negative"):
        novelty([[0]], [3, -1])
    with pytest.raises(DataError, match="num_items is 2"):
        coverage([[1, 2, 3]], 2)
    with pytest.raises(ConfigError, match="num_items is 0"):
        coverage([[-1]], 0)
