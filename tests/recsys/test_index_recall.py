"""Recall is measured against exact search, by selectivity; the factor is the smallest that reaches it."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.index import Cutover, ItemIndex
from recsys.index_recall import FACTORS, SHARES, WIDE_SHARES, RecallCheck, lowest, tune


def _vectors(count, seed=0):
    made = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def index():
    return ItemIndex.build(_vectors(8_000), exact_items=0)


@pytest.fixture(scope="module")
def check(index):
    return RecallCheck(index.embeddings_ID, _vectors(8, seed=1), 200)


def test_an_exact_index_finds_all(index, check):
    found = check.of(ItemIndex.build(index.embeddings_ID))
    assert tuple(found) == SHARES
    assert lowest(found) == 1.0


def test_recall_is_the_share_of_the_nearest_that_is_found(index, check):
    """Half of the nearest items are hidden from the index: it finds others in their place."""

    class Half:
        def search(self, query, k, allowed):
            rows = exact.search(query, 3 * k, allowed)
            return rows[~np.isin(rows, hidden)][:k]

    exact, hidden = ItemIndex.build(index.embeddings_ID), np.arange(0, 8_000, 2)
    found = check.of(Half())
    for share in (1.0, 0.5, 0.1):
        assert found[share].recall == pytest.approx(0.5, abs=0.05)


def test_the_cheapest_setting_that_is_enough_is_chosen(index, check):
    tuned, found = tune(index, check, 0.97)
    assert lowest(found) >= 0.975
    for cheaper in ({"factor": tuned.factor // 2}, {"lists": tuned.lists / 2, "wide_lists": None}):
        assert lowest(check.of(replace(tuned, **cheaper))) < lowest(found), "more is looked at, more is found"
    assert lowest(check.of(replace(tuned, factor=1, lists=0.125))) < 0.97
    assert tuple(found) == SHARES


def test_without_a_filter_fewer_lists_are_looked_at_where_they_are_enough(index, check):
    tuned, found = tune(index, check, 0.9)
    assert 0 < tuned.unfiltered_lists < tuned.lists
    assert min(found[share].recall for share in WIDE_SHARES) >= 0.905
    fewer = replace(tuned, wide_lists=tuned.unfiltered_lists - 1 / 32)
    assert lowest(check.of(fewer, shares=WIDE_SHARES)) < 0.905
    assert check.of(fewer, shares=(0.1,)).keys() == {0.1}
    for cutover in (
        Cutover(),
        Cutover(exact_share=0.001, most_fetched=16.0),
    ):  # filtered in the scan, or after
        one, other = (replace(tuned, wide_lists=wide, cutover=cutover) for wide in (1 / 32, None))
        assert check.of(one, shares=(0.1,))[0.1].recall == check.of(other, shares=(0.1,))[0.1].recall, (
            "a narrow filter is searched for in as many lists as before"
        )


def test_what_no_factor_reaches_is_told(index):
    """An index of other vectors finds next to nothing, with any factor."""
    check = RecallCheck(index.embeddings_ID, _vectors(4, seed=1), 20, (1.0,))
    other = replace(index, embeddings_ID=_vectors(8_000, seed=5))
    tuned, found = tune(other, check, 0.95)
    assert (tuned.factor, tuned.lists) == (FACTORS[-1], 1.0)
    assert lowest(found) < 0.5
