"""A user's own past: the same item again by count and age, others by the table's weights."""

import numpy as np
import pytest

from recsys import user_sources
from recsys.item_item.neighbours import ItemItem
from recsys.source_terms import SourceTerms
from recsys.user_sources import (
    PastNumbers,
    RowScores,
    TakenRows,
    UserSources,
    latest_weights,
    popularity,
    repeat_scores,
)

DAY_MS = 86_400_000
TABLE = ItemItem(
    neighbours=np.array([[1, 2], [2, -1], [-1, -1]], np.int32),
    weights=np.array([[1.0, -0.5], [0.25, 0.0], [0.0, 0.0]], np.float32),
)
TERMS = SourceTerms(item_item_days=1.0, repeat_days=2.0)


def scored(events, table=TABLE, terms=TERMS):
    """Events: (row, days ago, takes, repeats)."""
    rows, ages, takes, repeats = (np.array(column) for column in zip(*events, strict=True))
    at_ms = (-ages * DAY_MS).astype(np.int64)
    taken = TakenRows(rows=rows.astype(np.int64), at_ms=at_ms, takes=takes, repeats=repeats)
    return UserSources.of(taken, 0, table, terms)


def test_by_hand():
    found = scored([(0, 1.0, True, True), (0, 2.0, True, True), (1, 0.0, True, False)])
    rows = np.arange(3)
    # Item 0 was taken 2^-1/2 and 2^-1 times; its latest day counts for others, by one half-life.
    np.testing.assert_allclose(found.repeat.of(rows), [np.log1p(0.5**0.5 + 0.5), 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found.item_item.of(rows), [0, 0.5, 0.25 - 0.25], rtol=1e-6)
    assert found.item_item.best(9, lambda rows: rows >= 0).tolist() == [1]
    assert found.repeat.best(9, lambda rows: rows >= 0).tolist() == [0]
    assert found.repeat.best(9, lambda rows: rows > 0).size == 0


def test_the_best_are_those_of_a_full_sort_ties_by_row():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = np.sort(rng.choice(100, 30, replace=False))
        scores = rng.integers(-2, 4, 30).astype(np.float32)
        kept = [(-s, r) for r, s in zip(rows.tolist(), scores.tolist(), strict=True) if s > 0 and r % 3]
        for count in (0, 1, 5, 40):
            best = RowScores(rows, scores).best(count, lambda of: of % 3 > 0)
            assert best.tolist() == [row for _, row in sorted(kept)][:count]


def test_what_the_ranker_reads_by_hand():
    near = RowScores(np.array([2, 3, 5, 7]), np.array([0.5, -0.1, 0.05, 0.5], np.float32))
    again = RowScores(np.array([5]), np.array([np.log(2)], np.float32))
    found = PastNumbers.of(UserSources(item_item=near, repeat=again)).of_rows(np.array([2, 3, 5, 7, 9]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], 2 * np.log([11, 1 / 3, 2, 11, 1]), rtol=1e-6)
    # Two are best and share the first place; one is behind both; the others have none.
    np.testing.assert_allclose(found[:, 1], [6, 0, 6 / np.log2(4), 6, 0], rtol=1e-6)
    np.testing.assert_allclose(found[:, 2], [0, 0, 4 * np.log(2), 0, 0], rtol=1e-6)
    assert not PastNumbers().of_rows(np.arange(3)).any()


def test_unknown_items_and_future_events_say_nothing_wrong():
    assert scored([(-1, 0.0, True, True)]).repeat.rows.size == 0
    ahead = scored([(0, -3.0, True, True)])  # a clock that is ahead: as if it were now
    assert ahead.repeat.of(np.array([0]))[0] == pytest.approx(np.log(2))


def test_without_a_table_repeats_are_scored_alone():
    found = scored([(2, 0.0, True, True)], table=None)
    assert found.item_item.rows.size == 0
    assert found.repeat.of(np.array([2, 7])).tolist() == [pytest.approx(np.log(2)), 0.0]


def test_the_newest_items_speak_for_others(monkeypatch):
    monkeypatch.setattr(user_sources, "LATEST", 2)
    rows, weights = latest_weights(np.array([5, 6, 7, 5]), np.array([3.0, 2.0, 1.0, 0.0]), 1.0)
    assert rows.tolist() == [5, 7]
    assert weights.tolist() == [1.0, 0.5]


def test_more_times_more_and_a_half_life_halves():
    once, twice, old = (
        repeat_scores(np.zeros(len(ages), np.int64), np.array(ages), 10.0).scores[0]
        for ages in ([0.0], [0.0, 0.0], [10.0])
    )
    assert twice > once > old == pytest.approx(np.log(1.5))


def test_popularity_is_a_share_on_a_log_scale():
    counts = np.array([99.0, 9.0, 0.0])
    np.testing.assert_allclose(popularity(counts), [1.0, 0.5, 0.0])
    np.testing.assert_allclose(popularity(counts, np.array([1])), [0.5])
    assert popularity(np.zeros(2)).tolist() == [0.0, 0.0]
    assert popularity(np.zeros(0)).size == 0
