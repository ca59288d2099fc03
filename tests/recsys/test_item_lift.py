"""How much oftener than others an item was chosen where it was shown."""

import numpy as np
import polars as pl
import pytest

from recsys.config import default_config
from recsys.item_lift import PRIOR_POSITIVES, item_lifts, lifts_of

CLICK = default_config().tasks[0]


def counted(chosen, shown):
    return pl.DataFrame({"click_shown_life": chosen, "impressions_life": shown})


def test_an_item_chosen_twice_as_often_has_the_logarithm_of_two_once_it_was_shown_enough():
    lifts = item_lifts(counted([20_000, 5_000, 5_000], [100_000, 50_000, 150_000]), CLICK)
    assert lifts.dtype == np.float32
    np.testing.assert_allclose(lifts, np.log([2.0, 1.0, 1 / 3]), atol=2e-3)


def test_few_impressions_move_it_little():
    few, none, many = item_lifts(counted([1, 0, 100], [2, 0, 1000]), CLICK)
    assert 0 < few < np.log((1 + PRIOR_POSITIVES) / PRIOR_POSITIVES)
    assert none == 0
    assert many == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(
    "items", [counted([0, 0], [10, 10]), counted([0, 0], [0, 0]), pl.DataFrame({"item_id": ["a", "b"]})]
)
def test_nothing_counted_says_nothing(items):
    assert item_lifts(items, CLICK).tolist() == [0.0, 0.0]
    assert item_lifts(items, None).tolist() == [0.0, 0.0]


def test_a_reversal_that_is_counted_later_than_its_choice_is_no_rate_below_0():
    lifts = item_lifts(counted([-1, 30], [100, 100]), CLICK)
    assert lifts[0] == item_lifts(counted([0, 29], [100, 100]), CLICK)[0]
    assert np.isfinite(lifts).all()


def test_items_behind_the_last_have_none():
    lift_I = np.array([0.5, -0.5], np.float32)
    assert lifts_of(lift_I, np.array([1, 7, 0])).tolist() == [-0.5, 0.0, 0.5]
