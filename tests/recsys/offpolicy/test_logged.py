"""Rows of a log made into lists: what is left out, and that it is counted."""

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.offpolicy.logged import LoggedLists, read_lists


def rows(*lists):
    """Lists of (user, [(position, reward, propensity, kind)]), shuffled as rows."""
    flat = [(n, user, *row) for n, (user, shown) in enumerate(lists) for row in shown]
    flat = [flat[i] for i in np.random.default_rng(0).permutation(len(flat))]
    names = ("group", "unit", "position", "reward", "propensity", "kind")
    return dict(zip(names, (list(column) for column in zip(*flat, strict=True)), strict=True))


GOOD = [(1, 1.0, 0.5, "exact"), (2, 0.0, 1.0, "pinned"), (3, 2.0, 0.25, "exact")]


def test_lists_are_read_in_the_order_of_their_places() -> None:
    uniform = [(1, 1.0, 0.5, "uniform")]
    found = read_lists(**rows(("u", GOOD), ("v", uniform), ("u", GOOD[:2])))
    assert found.lists.reward.tolist() == [[1, 0, 2], [1, 0, 0], [1, 0, 0]]
    assert found.lists.propensity.tolist() == [[0.5, 1, 0.25], [0.5, 1, 1], [0.5, 1, 1]]
    assert found.lists.drawn.tolist() == [[True, False, True], [True, False, False], [True, False, False]]
    assert found.lists.unit.tolist() == [0, 1, 0]
    assert found.lists.left_out == {"pinned places": 2}
    assert (found.row >= 0).tolist() == [[True] * 3, [True, False, False], [True, True, False]]


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ([(1, 1.0, 1.0, "degraded"), (2, 1.0, 1.0, "degraded")], "lists with a place that is degraded"),
        ([(1, 1.0, 0.5, "exact"), (2, 1.0, 0.5, "seeded")], "lists with a place that is seeded"),
        ([(11, 1.0, 0.5, "exact"), (12, 0.0, 0.5, "exact")], "lists that are a later page"),
        ([(1, 1.0, 0.5, "exact"), (3, 0.0, 0.5, "exact")], "lists with a missing place"),
        ([(1, 1.0, float("nan"), "exact")], "lists without a propensity in (0, 1]"),
        ([(1, float("nan"), 0.5, "exact")], "lists with a label that is not known"),
    ],
)
def test_what_no_estimator_may_use_is_left_out_and_counted(shown, reason) -> None:
    found = read_lists(**rows(("u", GOOD[:1]), ("v", shown), ("w", shown)))
    assert found.lists.reward.tolist() == [[1.0]]
    assert found.lists.left_out == {reason: 2}
    with pytest.raises(DataError, match="no list is left of 1"):
        read_lists(**rows(("v", shown)))


def test_an_unknown_label_of_a_pinned_place_does_not_matter() -> None:
    found = read_lists(**rows(("u", [(1, float("nan"), float("nan"), "pinned"), (2, 1.0, 0.5, "exact")])))
    assert found.lists.reward.tolist() == [[0.0, 1.0]]


def test_the_first_places_stand_alone() -> None:
    lists = LoggedLists.of_lists(np.arange(6.0).reshape(2, 3), np.full((2, 3), 0.5), ["b", "a"])
    assert lists.first(2).reward.tolist() == [[0, 1], [3, 4]]
    assert lists.unit.tolist() == [1, 0]
