"""EASE as a baseline: as fitted by hand, before the day it scores, and with recency."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from recsys.item_item.ease import ease_weights
from training.baselines import item_item
from training.baselines.item_item import PENALTY, EaseBefore, ItemItemScores, build_ease_of
from training.baselines.own_history import HALF_LIFE_DAYS, events_before


@pytest.fixture(scope="module")
def events():
    rng = np.random.default_rng(2)
    users, items = rng.integers(0, 40, 600), rng.integers(0, 15, 600)
    return pl.DataFrame(
        {
            "user_id": [f"u{u:02}" for u in users],
            "item_id": [f"i{i:02}" for i in items],
            "age_days": rng.uniform(0, 90, 600),
        }
    )


def by_hand(events, half_life=None):
    history = np.zeros((40, 15))
    for user, item, age in events.iter_rows():
        cell = int(user[1:]), int(item[1:])
        history[cell] = max(history[cell], 1.0 if half_life is None else 0.5 ** (age / half_life))
    return history


IDS = pl.Series([f"u{u:02}" for u in range(40)]), pl.Series([f"i{i:02}" for i in range(15)])


def test_ease_multiplies_what_each_user_had(events):
    met = by_hand(events)
    weights = ease_weights(_sparse(met.T @ met), PENALTY, "float64")
    found = ItemItemScores(events, build_ease_of)
    np.testing.assert_allclose(found.of_lists(*IDS), met @ weights, atol=1e-4)
    recent = found.with_half_life(20.0)
    np.testing.assert_allclose(recent.of_lists(*IDS), by_hand(events, 20.0) @ weights, atol=1e-4)
    np.testing.assert_allclose(found.of_lists(*IDS), met @ weights, atol=1e-4)


def test_recency_reads_the_latest_events_alone(events, monkeypatch):
    monkeypatch.setattr(item_item, "MOST_EVENTS", 2)
    found = ItemItemScores(events, build_ease_of).with_half_life(20.0)
    history = by_hand(events, 20.0)
    history[history < np.sort(history, axis=1)[:, -2:-1]] = 0
    np.testing.assert_allclose(found.history.toarray(), history, atol=1e-6)


def test_only_the_most_frequent_items_are_fitted(events):
    found = ItemItemScores(events, build_ease_of, most_items=4)
    most = by_hand(events).sum(axis=0)
    kept = sorted(range(15), key=lambda item: (-most[item], item))[:4]
    assert found.items["id"].to_list() == sorted(f"i{item:02}" for item in kept)
    assert not found.of_lists(*IDS)[:, [i for i in range(15) if i not in kept]].any()


def test_a_day_is_scored_by_what_was_before_it(shop_chain, config):
    task, last = config.tasks[0], len(shop_chain) - 1
    events = events_before(shop_chain, last, task)
    feedback = pl.concat([s.table("feedback") for s in shop_chain[:last]]).filter(
        pl.col("kind") == task.feedback
    )
    assert events.height == feedback.height
    assert events["age_days"].min() == 0
    spread = feedback["occurred_at"].max() - feedback["occurred_at"].min()
    assert events["age_days"].max() == pytest.approx(spread / timedelta(days=1))
    ease = EaseBefore(shop_chain)
    users, items = events["user_id"][:50], events["item_id"][:50]
    plain = ItemItemScores(events, build_ease_of)
    np.testing.assert_array_equal(
        ease.of(last, task, recency=False).of_pairs(users, items), plain.of_pairs(users, items)
    )
    recent = ease.of(last, task, recency=True)
    np.testing.assert_array_equal(
        recent.of_pairs(users, items), plain.with_half_life(HALF_LIFE_DAYS).of_pairs(users, items)
    )
    assert recent.weights is ease.of(last, task, recency=False).weights


def _sparse(matrix):
    from scipy import sparse

    return sparse.csr_matrix(matrix)
