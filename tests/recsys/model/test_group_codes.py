"""Codes of a column find a user's aggregate of each candidate; fresh items cost what they are."""

import tracemalloc

import numpy as np

from recsys.model.group_codes import GroupCodes

KEYS = ["rugs", "boats", "chairs", "unheard of"]


def test_positions_are_those_of_the_values():
    codes = GroupCodes.of(["chairs", None, "rugs", "lamps"])
    assert codes.positions(KEYS, np.array([0, 1, 2, 3, 0])).tolist() == [2, 4, 0, 4, 2]
    assert codes.positions([], np.array([0, 1])).tolist() == [0, 0]


def test_fresh_items_have_their_own_values_and_the_old_codes_stay():
    codes = GroupCodes.of(["chairs", None, "rugs"])
    fresh = codes.with_rows(np.array([4, 1, 3]), ["boats", "rugs", None])
    assert fresh.positions(KEYS, np.arange(5)).tolist() == [2, 0, 0, 4, 1]
    again = fresh.with_rows(np.array([4, 0]), ["chairs", "boats"])
    assert again.positions(KEYS, np.arange(5)).tolist() == [1, 0, 0, 4, 2]
    assert fresh.positions(KEYS, np.arange(5)).tolist() == [2, 0, 0, 4, 1]
    assert codes.positions(KEYS, np.arange(3)).tolist() == [2, 4, 0]


def test_a_fresh_item_copies_nothing_of_the_catalogue():
    codes = GroupCodes.of([f"group {row % 500}" for row in range(200_000)])
    tracemalloc.start()
    codes.with_rows(np.array([200_000]), ["new"]).positions(KEYS, np.arange(500))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000
