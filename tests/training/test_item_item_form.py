"""What the item-item table counts is chosen by lists of new items; else it stays plain EASE."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recsys.config import default_config
from recsys.source_terms import SourceTerms
from training import item_item_form
from training.item_item import WALKS
from training.item_item_form import choose_form

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
NUM_ITEMS, NUM_USERS = 60, 40
ITEMS = pl.Series("item_id", [f"i{n:02d}" for n in range(NUM_ITEMS)])
PAIRS = [f"c{n // 2}" for n in range(NUM_ITEMS)]


def audience(rule, *, categories=None, seed=0):
    """Each user took three items, and now wants one more that is new.

    Args: rule: the last item taken, or None -> what comes after it; categories: of the items.
    """
    rng = np.random.default_rng(seed)
    rows, wanted = [], []
    for user in range(NUM_USERS):
        taken = [int(rng.integers(NUM_ITEMS))]
        while len(taken) < 4:
            taken.append(rule(taken[-1], rng) % NUM_ITEMS)
        for at, item in enumerate(taken[:3]):
            rows.append((f"u{user:02d}", ITEMS[item], "click", NOON + timedelta(hours=at), f"{at}"))
        wanted.append(taken[3])
    schema = {"user_id": pl.String, "item_id": pl.String, "kind": pl.String,
              "received_at": pl.Datetime("ms", "UTC"), "feedback_id": pl.String}  # fmt: skip
    taken = pl.DataFrame(rows, schema=schema, orient="row")
    items = ITEMS.to_frame().with_columns(
        category=pl.Series(categories or [None] * NUM_ITEMS, dtype=pl.String)
    )
    tables = {"taken": taken, "items": items}
    previous = SimpleNamespace(
        path=Path(f"/snapshots/{hash(tuple(rows))} {categories}"),
        table=lambda name, columns=None: tables[name].select(columns or pl.all()),
    )
    asked_at = pl.Series([NOON + timedelta(days=1)] * NUM_USERS, dtype=pl.Datetime("ms", "UTC"))
    users = taken["user_id"].unique().sort()
    return SimpleNamespace(
        previous=previous,
        num_users=NUM_USERS,
        requests=pl.DataFrame({"user_id": users, "shown_at": asked_at}),
        catalogue=items,
        allowed=lambda users: np.ones((users.stop - users.start, NUM_ITEMS), np.bool_),
        offsets=np.arange(NUM_USERS + 1),
        codes=np.array(wanted, np.int64),
    )


def config_of(**changes):
    config = default_config()
    item_item = config.item_item.model_copy(update={"penalty": 2.0, "walks": "off", **changes})
    return config.model_copy(update={"item_item": item_item})


def in_turn(item, _rng):
    return item + 1


def anything(_item, rng):
    return int(rng.integers(NUM_ITEMS))


def of_a_pair(item, rng):
    """Half of the items come with the other one of their category."""
    return item ^ 1 if item % 2 == 0 else int(rng.integers(NUM_ITEMS))


def test_order_is_taken_where_what_follows_is_wanted():
    found = choose_form([audience(in_turn)], config_of(), seed=0)
    assert found.terms == SourceTerms(item_item_order=True)
    assert found.sentence().startswith("item-item: order +0.")
    assert f"of {NUM_USERS} lists of new items" in found.sentence()


def test_plain_ease_stays_where_nothing_is_shown():
    found = choose_form([audience(anything, categories=PAIRS)], config_of(walks="auto"), seed=0)
    assert found.terms == SourceTerms()
    assert found.sentence().count("not taken") == 3


def test_attributes_are_taken_where_they_say_what_is_wanted():
    found = choose_form([audience(of_a_pair, categories=PAIRS)], config_of(order="off"), seed=0)
    assert found.terms == SourceTerms(item_item_attributes=True)
    assert "order" not in found.sentence()


@pytest.mark.parametrize(("switch", "taken"), [("on", True), ("off", False)])
def test_what_the_config_says_is_not_asked(monkeypatch, switch, taken):
    monkeypatch.setattr(item_item_form, "_Lists", None)
    switched = config_of(order=switch, attributes=switch, walks=switch, positive=switch)
    found = choose_form([audience(in_turn)], switched, seed=0)
    share = WALKS if taken else 0.0
    expected = {"item_item_order": taken, "item_item_attributes": taken, "item_item_positive": taken}
    assert found.terms == SourceTerms(**expected, item_item_walks=share)
    assert not found.sentence()


def test_nothing_is_asked_where_the_ranker_reads_the_table():
    """It has learned from scores of one form; what the config says itself holds in all its rows."""
    found = choose_form([audience(in_turn)], config_of(feature=True, attributes="on"), seed=0)
    assert found.said == ()
    assert found.terms == SourceTerms(item_item_attributes=True)


def test_walks_are_taken_where_they_order_better(monkeypatch):
    worth = item_item_form._Lists.worth
    monkeypatch.setattr(
        item_item_form._Lists, "worth", lambda lists, terms: worth(lists, terms) + terms.item_item_walks
    )
    found = choose_form([audience(in_turn)], config_of(order="off", walks="auto"), seed=0)
    assert found.terms == SourceTerms(item_item_walks=WALKS)
    assert found.sentence().startswith("item-item: walks +0.")


def test_weights_below_0_are_dropped_where_that_orders_better(monkeypatch):
    """It is asked where EASE's table is cut."""
    worth = item_item_form._Lists.worth
    monkeypatch.setattr(
        item_item_form._Lists, "worth", lambda lists, terms: worth(lists, terms) + terms.item_item_positive
    )
    found = choose_form([audience(in_turn)], config_of(order="off", neighbours=20), seed=0)
    assert found.terms == SourceTerms(item_item_positive=True)
    assert found.sentence().startswith("item-item: positive +")
    for whole in ({"neighbours": NUM_ITEMS}, {"neighbours": 20, "ease_items": NUM_ITEMS - 1}):
        assert not choose_form([audience(in_turn)], config_of(order="off", **whole), seed=0).sentence()


def test_without_lists_nothing_is_asked():
    assert not choose_form([], config_of(), seed=0).sentence()


def test_the_table_is_that_of_before_the_first_list(monkeypatch):
    """The newest day's own table would know what the earlier lists want."""
    first, last = audience(in_turn, seed=1), audience(in_turn, seed=2)
    asked = []
    monkeypatch.setattr(item_item_form, "item_item_table", lambda snapshot, *_: asked.append(snapshot))
    lists = item_item_form._Lists.of([first, last], config_of(attributes="off"))
    assert lists.worth(SourceTerms()).tolist() == [0.0] * (2 * NUM_USERS)
    assert asked == [first.previous]


def test_what_a_user_has_is_in_no_list(monkeypatch):
    of, found = audience(in_turn), []
    match = item_item_form.ranking.match
    monkeypatch.setattr(
        item_item_form.ranking, "match", lambda ranked, *a: found.append(ranked) or match(ranked, *a)
    )
    item_item_form._Lists.of([of], config_of()).worth(SourceTerms())
    taken = of.previous.table("taken").group_by("user_id", maintain_order=True).agg("item_id")
    own = [set(np.flatnonzero(ITEMS.is_in(items))) for items in taken.sort("user_id")["item_id"]]
    assert not [u for u, items in enumerate(found[0]) if own[u] & set(items.tolist())]
    assert (found[0] >= 0).any()


def test_so_many_of_the_newest_lists_are_asked(monkeypatch):
    days = [audience(in_turn, seed=n) for n in range(4)]
    monkeypatch.setattr(item_item_form, "MOST_LISTS", NUM_USERS + 1)
    assert item_item_form._newest(days) == days[2:]
    monkeypatch.setattr(item_item_form, "MOST_PERIODS", 1)
    assert item_item_form._newest(days) == days[3:]
