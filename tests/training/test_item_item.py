"""The table of neighbours: from what users took, however they are split; EASE where it fits, else cosines."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from recsys.config import FeatureConfig, default_config
from recsys.item_item.neighbours import ItemItem
from recsys.item_item.walks import blend, build_walks
from recsys.source_terms import NO_SOURCES, SourceTerms
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

    def table(self, name, columns=None):
        if name == "items":
            return ITEMS.to_frame().with_columns(
                category=pl.Series(["x", "x", None, None, None, "only one has it"]),
                attribute_tags=pl.Series([[], [], ["t", "u"], ["u"], None, []], dtype=pl.List(pl.String)),
            )
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


FORMS = {name: SourceTerms(**{f"item_item_{name}": True}) for name in ("order", "attributes")}
TAGS = {"attributes": (FeatureConfig(name="tags", entity="item", kind="multi_hot"),)}


@pytest.mark.parametrize("ease_items", [10, 0], ids=["EASE", "cosines"])
def test_what_comes_first_speaks_for_what_follows(ease_items):
    """They are taken together as often either way."""
    config, users = config_of(ease_items=ease_items, penalty=1.0), {f"u{n}": "ab" for n in range(4)}
    for terms, forward in ((NO_SOURCES, False), (FORMS["order"], True)):
        weights = item_item_table(Snapshot(users), config, ITEMS, terms).matrix().toarray()
        assert weights[1, 0] > 0
        assert (weights[0, 1] > 1.05 * weights[1, 0]) == forward


@pytest.mark.parametrize("ease_items", [10, 0], ids=["EASE", "cosines"])
def test_what_items_have_in_common_makes_neighbours_of_new_ones(ease_items):
    """By category and by tag: nobody has taken a, c or d."""
    config = config_of(ease_items=ease_items, penalty=1.0).model_copy(update=TAGS)
    users = {"u": "be", "v": "be"}
    found = {n: strongest(item_item_table(Snapshot(users), config, ITEMS, t)) for n, t in FORMS.items()}
    assert found["order"].keys() == {"b", "e"}
    assert {i: found["attributes"].get(i) for i in "acdf"} == {"a": "b", "c": "d", "d": "c", "f": None}


def test_with_too_many_events_order_does_not_count(monkeypatch):
    plain = item_item_table(Snapshot(USERS), config_of(penalty=2.0), ITEMS)
    monkeypatch.setattr(item_item, "MOST_SUMMED", 4)
    ordered = item_item_table(Snapshot(USERS), config_of(penalty=2.0), ITEMS, FORMS["order"])
    np.testing.assert_array_equal(ordered.weights, plain.weights)


@pytest.mark.parametrize("ease_items", [10, 0], ids=["EASE", "cosines"])
def test_with_too_many_events_attributes_count_where_all_pairs_fit(monkeypatch, ease_items):
    """Cosines are then made in blocks of items; the pairs of EASE's few items always fit."""
    config = config_of(ease_items=ease_items, penalty=2.0)
    plain = item_item_table(Snapshot(USERS), config, ITEMS)
    monkeypatch.setattr(item_item, "MOST_SUMMED", 4)
    found = item_item_table(Snapshot(USERS), config, ITEMS, FORMS["attributes"])
    assert np.array_equal(found.weights, plain.weights) == (ease_items == 0)


@pytest.mark.parametrize("ease_items", [10, 0], ids=["EASE", "cosines"])
def test_walks_are_added_to_the_table(ease_items):
    config = config_of(ease_items=ease_items, penalty=1.0)
    walked = item_item_table(Snapshot(USERS), config, ITEMS, SourceTerms(item_item_walks=0.5))
    plain = item_item_table(Snapshot(USERS), config, ITEMS)
    matrix = np.zeros((6, 6), np.float32)
    for row, taken in enumerate(("abc", "ab", "abd", "ef", "ef", "c")):
        matrix[row, ["abcdef".index(item) for item in taken]] = 1
    expected = blend(plain, build_walks(sparse.csr_matrix(matrix), most=6), 0.5)
    np.testing.assert_allclose(walked.matrix().toarray(), expected.matrix().toarray(), rtol=1e-5)
    assert not np.allclose(walked.matrix().toarray(), plain.matrix().toarray())


@pytest.mark.parametrize("form", [{}, {"item_item_order": True}, {"item_item_attributes": True}])
def test_a_positive_form_keeps_no_weight_below_0(form):
    config = config_of(penalty=1.0)
    plain = item_item_table(Snapshot(USERS), config, ITEMS, SourceTerms(**form)).matrix().toarray()
    found = item_item_table(Snapshot(USERS), config, ITEMS, SourceTerms(**form, item_item_positive=True))
    assert (plain < 0).any()
    np.testing.assert_array_equal(found.matrix().toarray(), np.maximum(plain, 0))


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
