"""What is taken together is counted by user, in the users' latest events, however they are split."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from features import together
from features.together import items_together, together_kinds

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
ITEMS = pl.Series("item_id", list("abcdef"))


class Snapshot:
    """Tails of users, split into parts: user -> items in order, or (item, kind, taken back)."""

    def __init__(self, users, num_parts=1):
        rows = []
        for user, taken in sorted(users.items()):
            for at, event in enumerate(taken):
                item, kind, back = event if isinstance(event, tuple) else (event, "click", False)
                rows.append((user, item, kind, NOON + timedelta(hours=1) if back else None, at))
        schema = {"user_id": pl.String, "item_id": pl.String, "kind": pl.String,
                  "void_at": pl.Datetime("ms", "UTC"), "at": pl.Int64}  # fmt: skip
        self._tail = pl.DataFrame(rows, schema=schema, orient="row")
        self._users = sorted(users)
        self.num_parts = num_parts

    def table(self, name, part, columns):
        assert name == "tail"
        mine = self._users[part :: self.num_parts]
        return self._tail.filter(pl.col("user_id").is_in(mine)).select(columns)


def found(users, num_parts=1, kinds=("click",)):
    """Neighbours by item, as letters."""
    rows = items_together(Snapshot(users, num_parts), kinds, ITEMS)
    assert rows.shape == (6, together.NEIGHBOURS)
    assert rows.dtype == np.int32
    return {ITEMS[at]: "".join(ITEMS[int(row)] for row in row_K if row >= 0) for at, row_K in enumerate(rows)}


def test_by_hand():
    """Three users took a and b, two took a and c, of which more took a in all; one user took d."""
    users = {"u": "abc", "v": "ba", "w": "cab", "x": "ad"}
    assert found(users) == {"a": "bc", "b": "ac", "c": "ba", "d": "", "e": "", "f": ""}


@pytest.mark.parametrize("num_parts", [2, 3])
def test_parts_do_not_matter(num_parts):
    users = {f"u{n}": [ITEMS[int(i)] for i in np.random.default_rng(n).integers(6, size=8)] for n in range(9)}
    assert found(users, num_parts) == found(users)


def test_a_user_counts_once_for_a_pair():
    assert found({"u": "ababab", "v": "cd"})["a"] == ""


def test_what_was_taken_back_or_is_of_another_kind_or_no_item_counts_for_nothing():
    pair = [("a", "click", False), ("b", "click", False)]
    others = [("a", "click", False), ("b", "click", True), ("c", "hide", False), ("gone", "click", False)]
    assert found({"u": pair, "v": others})["a"] == ""
    assert found({"u": pair, "v": pair})["a"] == "b"


def test_items_far_apart_or_long_ago_are_not_together(monkeypatch):
    monkeypatch.setattr(together, "WINDOW", 1)
    assert found({"u": "abc", "v": "abc"})["a"] == "b"
    monkeypatch.setattr(together, "RECENT", 2)
    assert found({"u": "abc", "v": "abc"})["a"] == ""


def test_what_everybody_takes_is_nobodys_neighbour():
    """b goes with a in 4 of its 4 users, d with a in 5 of 15."""
    users = {f"b{n}": "ab" for n in range(4)} | {f"d{n}": "ad" for n in range(5)}
    users |= {f"e{n}": "d" for n in range(40)}
    assert found(users)["a"] == "bd"


def test_without_events_there_is_nothing():
    assert set(found({"u": "a"}).values()) == {""}
    assert set(found({"u": "ab", "v": "ab"}, kinds=()).values()) == {""}


def test_the_kinds_are_those_of_the_retrieval_task_and_below(make_config):
    config = make_config()
    assert together_kinds(config.tasks, config.retrieval_task) == ("click", "purchase")
    assert together_kinds(config.tasks, None) == ()
