"""Histories: order, the cut at the latest events, and the matrix of users and items."""

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.item_item.histories import Histories


def test_events_stand_by_user_then_by_day_and_ties_as_given():
    of = Histories.of(
        np.array([1, 0, 1, 1]), np.array([7, 8, 9, 6]), num_users=3, days=np.array([5.0, 1.0, 2.0, 5.0])
    )
    assert of.starts.tolist() == [0, 1, 4, 4]
    assert of.items.tolist() == [8, 9, 7, 6]
    assert of.days is not None
    assert of.days.tolist() == [1, 2, 5, 5]
    assert of.steps_back.tolist() == [0, 2, 1, 0]
    assert of.users.tolist() == [0, 1, 1, 1]


def test_the_latest_events_are_kept():
    of = Histories.of(np.array([0, 0, 0, 1]), np.array([1, 2, 3, 4]), num_users=2, most=2)
    assert of.items.tolist() == [2, 3, 4]
    assert of.counts.tolist() == [2, 1]


def test_users_are_taken_in_any_order():
    of = Histories.of(np.array([0, 0, 2]), np.array([1, 2, 3]), num_users=3, values=np.array([1.0, 2.0, 3.0]))
    some = of.take(np.array([2, 1, 0]))
    assert some.starts.tolist() == [0, 1, 1, 3]
    assert some.items.tolist() == [3, 1, 2]
    assert some.values is not None
    assert some.values.tolist() == [3, 1, 2]


def test_an_item_met_again_counts_its_largest_value():
    of = Histories.of(np.array([0, 0, 1]), np.array([2, 2, 0]), num_users=2, values=np.array([5.0, 1.0, 3.0]))
    assert of.matrix(3).toarray().tolist() == [[0, 0, 5], [3, 0, 0]]


@pytest.mark.parametrize(
    ("users", "items", "named"),
    [
        ([0, 2], [0, 0], "num_users is 2"),
        ([0, 1], [0, -1], "items holds -1"),
        ([0], [0, 1], "items has shape"),
    ],
)
def test_what_is_no_row_is_refused(users, items, named):
    with pytest.raises(DataError, match=named):
        Histories.of(np.array(users), np.array(items), num_users=2)


def test_an_item_beyond_the_catalogue_is_refused():
    with pytest.raises(DataError, match="item row 4; the catalogue has 4 items"):
        Histories.of(np.array([0]), np.array([4]), num_users=1).matrix(4)
