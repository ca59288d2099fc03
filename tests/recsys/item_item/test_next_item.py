"""Sums of what comes before an event: by hand, in blocks, by days and over users."""

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.item_item import next_item
from recsys.item_item.histories import Histories
from recsys.item_item.next_item import sum_next_items
from recsys.item_item.recency import HalfLife, PerStep
from tests.recsys.item_item.shapes import random_histories

ITEMS = 25


def by_hand(of: Histories, weigh) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.zeros((ITEMS, ITEMS)), np.zeros((ITEMS, ITEMS))
    for user in range(of.num_users):
        events = range(*of.starts[user : user + 2])
        for t in events[1:]:
            state = np.zeros(ITEMS)
            for earlier in range(events[0], t):
                state[of.items[earlier]] += weigh(earlier, t)
            before += np.outer(state, state)
            after[:, of.items[t]] += state
    return before, after


@pytest.mark.parametrize("cells", [1, 2_000, 10**9])
def test_every_event_is_predicted_from_the_earlier_ones(cells, monkeypatch):
    monkeypatch.setattr(next_item, "_CELLS_AT_ONCE", cells)
    of = random_histories()
    found = sum_next_items(of, ITEMS, PerStep(0.5))
    # 0.5 to the 7th is less than what is left out.
    before, after = by_hand(of, lambda i, t: 0.5 ** (t - i - 1) if t - i <= 7 else 0.0)
    np.testing.assert_allclose(found.before.toarray(), before, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.next.toarray(), after, rtol=1e-4, atol=1e-5)


def test_a_half_life_counts_days_before_the_predicted_event():
    of = random_histories(timed=True)
    found = sum_next_items(of, ITEMS, HalfLife(20.0))

    def weigh(earlier: int, t: int) -> float:
        weight = 0.5 ** (float(of.days[t] - of.days[earlier]) / 20)
        return weight if weight >= 0.01 else 0.0

    before, after = by_hand(of, weigh)
    np.testing.assert_allclose(found.before.toarray(), before, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.next.toarray(), after, rtol=1e-3, atol=1e-3)
    with pytest.raises(DataError, match="decay per step"):
        sum_next_items(random_histories(), ITEMS, HalfLife(20.0))


def test_days_and_users_add_up():
    of, law = random_histories(timed=True), PerStep(0.5)
    whole = sum_next_items(of, ITEMS, law)
    old = sum_next_items(of, ITEMS, law, targets=of.days < 60)
    days = old + sum_next_items(of, ITEMS, law, targets=of.days >= 60)
    assert 0 < old.next.sum() < whole.next.sum()
    shares = [sum_next_items(of.take(np.arange(s, of.num_users, 2)), ITEMS, law) for s in range(2)]
    for total in (days, shares[0] + shares[1]):
        np.testing.assert_allclose(total.before.toarray(), whole.before.toarray(), rtol=1e-4)
        np.testing.assert_allclose(total.next.toarray(), whole.next.toarray(), rtol=1e-4)
    with pytest.raises(DataError, match="targets has shape"):
        sum_next_items(of, ITEMS, law, targets=np.ones(3, bool))


def test_one_event_is_predicted_by_nothing():
    alone = Histories.of(np.array([0, 1]), np.array([1, 2]), num_users=2)
    found = sum_next_items(alone, ITEMS, PerStep(0.5))
    assert found.before.nnz == found.next.nnz == 0
