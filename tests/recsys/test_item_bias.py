"""How much oftener an item was chosen than the heads expected."""

import numpy as np
import polars as pl
import pytest

from recsys.item_bias import PRIOR_POSITIVES, bias_by_row, bias_of, item_bias, no_item_bias


def counted(**items):
    rows = [(item, float(chosen), float(expected)) for item, (chosen, expected) in items.items()]
    return pl.DataFrame(rows, schema=["item_id", "chosen", "expected"], orient="row")


def biases(chosen):
    return dict(item_bias(chosen).iter_rows())


def test_an_item_chosen_twice_as_often_as_expected_has_the_logarithm_of_two_once_it_was_expected_enough():
    found = biases(counted(a=(20_000, 10_000), b=(5_000, 5_000), c=(1_000, 3_000)))
    assert found == pytest.approx({"a": np.log(2), "b": 0.0, "c": np.log(1 / 3)}, abs=4e-3)


def test_what_was_hardly_shown_stays_near_0():
    found = biases(counted(few=(1, 0.1), none=(0, 0)))
    assert 0 < found["few"] < np.log((1 + PRIOR_POSITIVES) / PRIOR_POSITIVES)
    assert found["none"] == 0


def test_days_of_an_item_add_up():
    days = pl.concat([counted(a=(30, 10)), counted(a=(10, 30), b=(4, 4))])
    assert biases(days) == pytest.approx({"a": 0.0, "b": 0.0})


def test_a_reversal_that_is_counted_later_than_its_choice_is_no_rate_below_0():
    assert biases(counted(a=(-1, 5))) == biases(counted(a=(0, 5)))


def test_a_catalogue_knows_its_items_alone():
    known = item_bias(counted(b=(20, 5), x=(5, 5), a=(0, 15)))
    found = bias_by_row(known, pl.Series("item_id", ["a", "new", "b"]))
    assert found.dtype == np.float32
    assert found[1] == 0
    np.testing.assert_allclose(found[[0, 2]], np.log([5 / 20, 25 / 10]), rtol=1e-6)
    assert bias_by_row(no_item_bias(), pl.Series("item_id", ["a", "b"])).tolist() == [0.0, 0.0]


def test_rows_behind_the_last_have_none():
    bias_I = np.array([0.5, -0.5], np.float32)
    assert bias_of(bias_I, np.array([1, 7, 0])).tolist() == [-0.5, 0.0, 0.5]
