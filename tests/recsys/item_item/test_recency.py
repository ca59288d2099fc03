"""Laws of recency and how one is chosen."""

import numpy as np
import pytest

from recsys.errors import ConfigError, DataError
from recsys.item_item.histories import Histories
from recsys.item_item.recency import HalfLife, PerStep, choose_recency

TIMED = Histories.of(
    np.array([0, 0, 0, 2]), np.array([1, 2, 3, 4]), num_users=3, days=np.array([10.0, 40.0, 70.0, 5.0])
)
UNTIMED = Histories.of(np.array([0, 0, 0, 2]), np.array([1, 2, 3, 4]), num_users=3)


def test_a_step_back_counts_a_factor_less():
    np.testing.assert_allclose(PerStep(0.5).weights(UNTIMED), [0.25, 0.5, 1, 1])


def test_a_half_life_counts_from_the_users_latest_event():
    np.testing.assert_allclose(HalfLife(30.0).weights(TIMED), [0.25, 0.5, 1, 1])
    np.testing.assert_allclose(HalfLife(np.inf).weights(TIMED), 1)
    np.testing.assert_allclose(HalfLife(7.0).of_ages(np.array([0, 7, 14])), [1, 0.5, 0.25])


def test_the_law_of_most_worth_is_chosen_and_of_equals_the_first():
    law, worth = choose_recency(UNTIMED, lambda weights: -abs(float(weights[0]) - 0.25))
    assert law == PerStep(0.5)
    assert worth["0.5 per step"] == pytest.approx(0)
    assert choose_recency(TIMED, lambda weights: float(weights[0] < 1))[0] == HalfLife(365)
    with pytest.raises(ConfigError, match="no law of recency"):
        choose_recency(TIMED, lambda weights: 0.0, [])


def test_laws_out_of_range_are_refused():
    for factor in (0.0, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="recency per step"):
            PerStep(factor)
    for days in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="half-life"):
            HalfLife(days)
    with pytest.raises(DataError, match="decay per step"):
        HalfLife(1.0).weights(UNTIMED)
