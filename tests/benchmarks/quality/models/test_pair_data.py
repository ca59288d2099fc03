"""Rows without time, measured over all of them and inside each user's own."""

import numpy as np
import pytest

from benchmarks.quality.models.pair_data import Pairs

USERS = np.repeat([0, 1], 3)
LABEL = np.array([1, 0, 0, 1, 1, 0], np.float32)
PAIRS = Pairs(user=USERS, item=np.arange(6), labels={"liked": LABEL})


def test_an_order_inside_users_knows_nothing_of_who_likes_much():
    """All of the first user's rows are said to be better than any of the second's."""
    said = {"liked": LABEL + np.where(USERS == 0, 10.0, 0.0)}
    (inside,) = PAIRS.measures_inside({"liked": "list_auc"})
    (over_all,) = PAIRS.measures({"liked": "auc"})
    assert inside.value(said) == 1.0
    assert over_all.value(said) < 1.0


def test_a_users_mean_orders_nothing_inside():
    said = {"liked": np.where(USERS == 0, 1 / 3, 2 / 3)}
    (inside,) = PAIRS.measures_inside({"liked": "list_auc"})
    (over_all,) = PAIRS.measures({"liked": "auc"})
    assert inside.value(said) == 0.5
    assert over_all.value(said) == pytest.approx(6 / 9)


def test_only_some_rows_count_inside_too():
    (inside,) = PAIRS.measures_inside({"liked": "list_auc"})
    of_second = inside.among(USERS == 1, "_warm")
    assert of_second.value({"liked": np.array([0, 1, 1, 0, 0, 1.0])}) == 0.0
