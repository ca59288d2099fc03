"""The table of neighbours: from what users took, however they are split; EASE where it fits, else cosines."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.config import default_config
from recsys.item_item.neighbours import ItemItem
from training import item_item
from training.item_item import item_item_table, with_rows_of

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
ITEMS = pl.Series("item_id", list("abcdef"))


class Snapshot:
    """What users took: user -> items in order, or (item, kind)."""

    def __init__(self, users):
        self.path = Path(f"/snapshots/{users}")
        rows = []
        for user, taken in sorted(users.items()):
            for at, event in enumerate(taken):
                item, kind = event if isinstance(event, tuple) else (event, "click")
                rows.append((user, item, kind, NOON + timedelta(hours=at), f"{at:02d}"))
        schema = {"user_id": pl.String, "item_id": pl.String, "kind": pl.String,
                  "received_at": pl.Datetime("ms", "UTC"), "feedback_id": pl.String}  # fmt: skip
        self._taken = pl.DataFrame(rows, schema=schema, orient="row")

    def table(self, name, columns):
        assert name == "taken"
        return self._taken.select(columns).sample(fraction=1.0, shuffle=True, seed=3)  # in any order


def config_of(**changes):
    config = default_config()
    return config.model_copy(update={"item_item": config.item_item.model_copy(update=changes)})


def strongest(table):
    """The strongest neighbour of each item with any, as letters."""
    found = {}
    for row, item in enumerate(ITEMS):
        if (table.weights[row] > 0).any():
            found[item] = ITEMS[int(table.neighbours[row, np.argmax(table.weights[row])])]
    return found


USERS = {"u": "abc", "v": "ba", "w": "abd", "x": "ef", "y": "fe", "z": ["c", ("d", "rating")]}


@pytest.mark.parametrize("ease_items", [10, 0], ids=["EASE", "cosines"])
def test_what_users_take_with_an_item_is_its_neighbour(ease_items):
    table = item_item_table(Snapshot(USERS), config_of(ease_items=ease_items, penalty=1.0), ITEMS)
    found = strongest(table)
    assert (found["a"], found["b"], found["e"], found["f"]) == ("b", "a", "f", "e")
    assert not (table.neighbours == np.arange(6)[:, None]).any(), "an item does not speak for itself"


def test_only_taking_kinds_count():
    """d is taken by w alone: the rating of z says nothing."""
    with_rating = item_item_table(Snapshot(USERS), config_of(penalty=1.0), ITEMS)
    without = item_item_table(Snapshot({**USERS, "z": "c"}), config_of(penalty=1.0), ITEMS)
    np.testing.assert_array_equal(with_rating.weights, without.weights)


def test_a_large_catalogue_has_fewer_neighbours(monkeypatch):
    monkeypatch.setattr(item_item, "MOST_CELLS", 12)
    assert item_item_table(Snapshot({**USERS, "q": "a"}), config_of(penalty=1.0), ITEMS).neighbours.shape == (
        6,
        2,
    )


def test_nothing_taken_or_wanted_is_no_table():
    assert item_item_table(Snapshot({"u": [("a", "rating")]}), config_of(), ITEMS) is None
    assert item_item_table(Snapshot(USERS), config_of(candidates=0), ITEMS) is None


def test_a_table_is_made_once_for_a_snapshot_and_a_catalogue(monkeypatch):
    first = item_item_table(Snapshot(USERS), config_of(), ITEMS)
    assert item_item_table(Snapshot(USERS), config_of(), ITEMS.clone()) is first
    assert item_item_table(Snapshot({**USERS, "n": "a"}), config_of(), ITEMS) is not first
    assert item_item_table(Snapshot(USERS), config_of(), ITEMS.reverse()) is not first


def test_neighbours_keep_their_items_in_another_catalogue():
    table = ItemItem(
        neighbours=np.array([[1, 2], [2, -1], [0, -1]], np.int32),
        weights=np.array([[1.0, 2.0], [3.0, 0.0], [4.0, 0.0]], np.float32),
    )
    moved = with_rows_of(table, pl.Series(["a", "b", "c"]), pl.Series(["new", "c", "a"]))
    # b is gone: it neither speaks nor is spoken for.
    assert moved.neighbours.tolist() == [[-1, -1], [2, -1], [-1, 1]]
    assert moved.weights.tolist() == [[0.0, 0.0], [4.0, 0.0], [0.0, 2.0]]
