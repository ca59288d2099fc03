"""The peer of sequences: what it is given, what is made of its lists, and how it is asked for."""

import re

import numpy as np
import pytest

from benchmarks.quality.models.next_items import Part
from benchmarks.quality.peers.rectools_rows import NAMES, SCRIPT, call, ranked, rectools_rows, write_events
from recsys.errors import DataError
from recsys.item_item.histories import Histories

# The script runs in another environment, so its table is read as text.
MODELS_OF_THE_SCRIPT = re.findall(r'^    "(rectools_\w+)": \{', SCRIPT.read_text(), re.MULTILINE)


@pytest.fixture
def part() -> Part:
    known = Histories.of(np.array([0, 0, 0, 1, 2, 2]), np.array([4, 2, 7, 1, 3, 0]), num_users=3)
    return Part(known=known, users=np.array([0, 2]), wanted=np.array([5, 6]), num_items=8, attributes=None)


def test_the_validation_item_of_a_tested_user_is_held_back(part, tmp_path):
    write_events(tmp_path / "asked.npz", part)
    given = np.load(tmp_path / "asked.npz")
    pairs = list(zip(given["users"].tolist(), given["items"].tolist(), strict=True))
    assert [pair for pair, held in zip(pairs, given["held"], strict=True) if held] == [(0, 7), (2, 0)]
    assert pairs == [(0, 4), (0, 2), (0, 7), (1, 1), (2, 3), (2, 0)]
    assert given["tested"].tolist() == [0, 2]


def test_a_wanted_item_behind_the_last_place_counts_as_missed(part):
    lists = np.array([[1, 5, 3, *range(20, 29)], [1, 2, 3, *[-1] * 9]])
    found = ranked(lists, part)
    assert found.ranks.tolist() == [1, -1]
    assert found.first.shape == (2, 10)
    values = found.values()
    assert values["recall_at_10"].tolist() == [1, 0]
    assert values["mrr"].tolist() == [0.5, 0]


def test_its_rows_are_no_choice_and_on_request(part):
    rows = rectools_rows(part)
    assert [*rows] == [*NAMES] == [*MODELS_OF_THE_SCRIPT]
    assert all(row.on_request and not row.ours for row in rows.values())


def test_a_peer_that_fails_says_why(tmp_path):
    with pytest.raises(DataError, match=r"row 'a': the peer ended with 3: no such model; leave --peer out"):
        call("a", ["bash", "-c", "echo no such model >&2; exit 3"], str(tmp_path))
