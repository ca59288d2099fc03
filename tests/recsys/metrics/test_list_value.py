"""The value of an order of lists, by hand."""

import numpy as np
import pytest

from recsys.metrics.columns import Lists
from recsys.metrics.list_value import order_values

ONE_LIST = np.array([7, 7, 7])
SECOND = 1 / np.log2(3)


def value(worth, score, examination=(1.0, 1.0, 1.0), group=ONE_LIST):
    lists = Lists(group=np.asarray(group), examination=np.asarray(examination, float))
    user = np.zeros(len(worth), np.int64)
    gain, share = order_values(np.asarray(worth, float), np.asarray(score, float), lists, user, 1)
    return gain[0], share[0]


def test_places_count_by_their_logarithm_where_all_are_looked_at():
    mean = (1 + SECOND + 0.5) / 3
    assert value([0, 2, 0], [1, 3, 2]) == pytest.approx((2 * (1 - mean), 2 * mean))
    assert value([0, -2, 0], [1, 3, 2]) == pytest.approx((-2 * (1 - mean), 2 * mean))


def test_equal_scores_share_their_places_and_gain_nothing():
    assert value([5, 1, 0], [4, 4, 4])[0] == pytest.approx(0)
    mean = (1 + SECOND + 0.5) / 3
    assert value([3, 0, 0], [4, 4, 1])[0] == pytest.approx(3 * ((1 + SECOND) / 2 - mean))


def test_a_label_at_a_place_seldom_looked_at_counts_more_and_places_count_as_they_are_looked_at():
    gain, share = value([0, 0, 1], [1, 2, 3], (1.0, 0.5, 0.25))
    mean = 1.75 / 3
    assert (gain, share) == pytest.approx(((1 - mean) / 0.25, mean / 0.25))


def test_rows_of_no_list_and_an_empty_day_count_nothing():
    assert value([1, 1, 1], [1, 2, 3], group=[-1, -1, -1]) == (0, 0)
    assert value([1, 0, 9], [2, 1, 3], group=[0, 0, -1])[0] == pytest.approx((1 - SECOND) / 2)


def test_a_random_order_gains_nothing_on_average():
    rng = np.random.default_rng(0)
    size = 60_000
    lists = Lists(group=np.arange(size) // 6, examination=np.tile([1, 0.8, 0.6, 0.5, 0.4, 0.3], size // 6))
    worth, user = rng.random(size), np.arange(size) // 12
    for score, low, high in ((rng.random(size), -0.01, 0.01), (worth, 0.1, 1)):
        gain, share = order_values(worth, score, lists, user, size // 12)
        assert low < gain.sum() / share.sum() < high
