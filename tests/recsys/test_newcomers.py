"""A newcomer is lifted until it was shown so often, and what was never counted is as new as can be."""

import numpy as np
import polars as pl

from recsys.newcomers import SHOWN, newness, newness_of, times_shown


def test_what_lifts_an_item_falls_in_a_straight_line_and_is_gone():
    found = newness(np.array([0, 10, 25, 50, 51, 10_000]), 50)
    np.testing.assert_allclose(found, [1.0, 0.8, 0.5, 0.0, 0.0, 0.0], rtol=1e-6)
    assert found.dtype == np.float32


def test_rows_that_came_after_the_counting_are_new():
    shown = np.array([100, 20])
    np.testing.assert_allclose(newness_of(shown, np.array([1, 0, 2, -1]), 40), [0.5, 0.0, 1.0, 1.0])
    assert newness_of(np.zeros(0, np.int64), np.array([3]), 40).tolist() == [1.0]


def test_an_item_of_which_nothing_is_known_was_never_shown():
    items = pl.DataFrame({"item_id": ["a", "b"], SHOWN: [7, None]})
    assert times_shown(items).tolist() == [7, 0]
    assert times_shown(items.drop(SHOWN)).tolist() == [0, 0]
