"""What the user took, and its neighbours, are candidates with a source, a reason and a part of the score."""

from dataclasses import replace

import numpy as np
import pytest

from features.taken_events import TakenEvents
from recsys.config import ItemItemConfig, PolicyConfig, RetrievalConfig
from recsys.item_item.neighbours import ItemItem
from recsys.source_terms import SourceTerms
from recsys.user_past import UserPast
from recsys.user_sources import UserSources
from serving.catalogue import ItemPatch, ItemRow
from serving.catalogue.overlay import ItemOverlay
from serving.engine import Engine
from serving.request import Deadline, Filter, RankRequest

DAY_MS = 86_400_000


@pytest.fixture
def past():
    """Item n speaks for n + 1, and half as much for n + 2; the last ones for nothing."""
    rows = np.arange(40)[:, None] + np.array([1, 2])
    return UserPast(
        table=ItemItem(
            neighbours=np.where(rows < 40, rows, -1).astype(np.int32),
            weights=np.where(rows < 40, [1.0, 0.5], 0.0).astype(np.float32),
        ),
        taking_kinds=frozenset({"click"}),
        terms=SourceTerms(item_item_days=1.0, repeat_days=1.0),
    )


@pytest.fixture
def ask(fakes, past):
    def ask(
        taken=(("i3", 0), ("i8", 1)),
        kind="click",
        past=past,
        count=50,
        terms=None,
        learn=False,
        state=None,
        size=40,
        repeats=100,
        **request,
    ):
        """Ask for a user who took items some days ago."""
        events = TakenEvents(
            item_ids=[item for item, _ in taken],
            kinds=[kind] * len(taken),
            at_ms=np.array([fakes.NOON_MS - int(days * DAY_MS) for _, days in taken], np.int64),
        )
        user = fakes.User(user_id="u1", known=True, taken=events)
        if learn:
            past = replace(past, repeat_kinds=frozenset({"click"}))
        model = replace(fakes.model(u1=user), past=past)
        if terms is not None:
            fusion = model.fusion.with_sources(terms)
            model = replace(model, fusion=fusion, past=replace(past, terms=terms))
        engine = Engine(
            model,
            ItemOverlay(),
            policy=PolicyConfig(name="greedy"),
            retrieval=RetrievalConfig(num_candidates=4, popular_candidates=0, repeat_candidates=repeats),
            item_item=ItemItemConfig(candidates=count),
        )
        asked = RankRequest(user_id="u1", page_size=3, explain=True, **request)
        return engine.score_candidates(asked, fakes.NOON_MS, Deadline.after(60), state=state).page(size)

    return ask


def found_by(answer, source="item_item"):
    return {item.item_id: item.sources for item in answer.items if source in item.sources}


def test_neighbours_of_what_was_taken_are_candidates(ask):
    answer = ask()
    assert set(found_by(answer)) == {"i4", "i5", "i9", "i10"}
    assert answer.num_candidates == {"retrieval": 4, "item_item": 4}
    assert "often chosen with items you chose" in next(i for i in answer.items if i.item_id == "i4").reasons
    assert found_by(ask(taken=[("i37", 0)])) == {
        "i38": ("retrieval", "item_item"),
        "i39": ("retrieval", "item_item"),
    }


def test_as_many_as_the_config_says_by_weight_and_age(ask):
    """i4 has 1, i5 and i9 a half each: one by its weight, one by its age."""
    assert set(found_by(ask(count=3))) == {"i4", "i5", "i9"}
    assert set(found_by(ask(count=1, taken=[("i3", 3), ("i8", 0)]))) == {"i9"}
    assert found_by(ask(count=0)) == {}


def test_forbidden_neighbours_make_room_for_others(ask):
    denied = Filter(deny_item_ids=frozenset({"i4", "i9"}))
    assert set(found_by(ask(count=2, filter=denied))) == {"i5", "i10"}


@pytest.mark.parametrize("taken", [(), [("i39", 0)], [("gone", 0)]])
def test_without_neighbours_there_are_none(ask, taken):
    assert found_by(ask(taken=taken)) == {}


def test_other_kinds_and_bundles_without_a_table(ask):
    assert found_by(ask(kind="rating")) == {}
    assert found_by(ask(past=UserPast())) == {}


def test_a_seed_has_its_own_list(ask):
    assert found_by(ask(seed_item_id="i20")) == {}


def test_what_was_taken_is_a_candidate_where_repeats_are_learned(ask):
    assert found_by(ask(), "repeat") == {}
    answer = ask(learn=True)
    assert set(found_by(answer, "repeat")) == {"i3", "i8"}
    assert "you chose it before" in next(i for i in answer.items if i.item_id == "i3").reasons
    assert set(found_by(ask(learn=True, filter=Filter(deny_item_ids=frozenset({"i3"}))), "repeat")) == {"i8"}


def test_the_score_has_a_part_of_each_source_with_a_weight(ask):
    """i3 was taken twice today: log 3; i4 is its neighbour; all parts add up."""
    terms = SourceTerms(repeat=10.0, item_item=1.0, repeat_days=1.0, item_item_days=1.0)
    answer = ask(learn=True, terms=terms, taken=[("i3", 0), ("i3", 0), ("i8", 1)])
    assert [item.item_id for item in answer.items][:3] == ["i3", "i8", "i4"]
    first = answer.items[0].explanation.contributions
    assert first["source:repeat"] == pytest.approx(10 * np.log(3))
    assert answer.items[1].explanation.contributions["source:repeat"] == pytest.approx(10 * np.log(1.5))
    assert answer.items[2].explanation.contributions["source:item_item"] == pytest.approx(1.0)
    for item in answer.items:
        assert sum(item.explanation.contributions.values()) == pytest.approx(item.score)
    assert answer.explanation.weights["source:repeat"] == 10.0


def test_a_request_changes_the_weight_of_a_source(ask):
    terms = SourceTerms(repeat=10.0, repeat_days=1.0)
    without = ask(learn=True, terms=terms, head_weights={"source:repeat": 0.0})
    assert without.items[0].item_id == "i39"
    assert "source:repeat" not in without.items[0].explanation.contributions
    near = ask(learn=True, terms=terms, head_weights={"source:repeat": 0.0, "source:retrieval": 1000.0})
    assert near.items[0].item_id == "i3"  # of the candidates, the item nearest to everybody
    popular = ask(learn=True, head_weights={"source:popular": 1000.0})
    assert popular.items[0].item_id == "i3"  # the only one on the list of the ten most popular


def test_rank_scores_the_callers_items_by_the_same_sources(ask):
    terms = SourceTerms(repeat=10.0, item_item=1.0, repeat_days=1.0, item_item_days=1.0)
    answer = ask(learn=True, terms=terms, item_ids=("i30", "i9", "i8"))
    assert [item.item_id for item in answer.items] == ["i8", "i9", "i30"]
    assert answer.items[1].explanation.contributions["source:item_item"] == pytest.approx(0.5)


def test_the_pages_after_the_first_have_as_many_candidates_of_the_past(ask):
    """Two neighbours and one repeat a page, though those of the page before are the strongest."""
    terms = SourceTerms(repeat=10.0, item_item=9.0, repeat_days=1.0, item_item_days=1.0)
    pages = {"learn": True, "terms": terms, "count": 2, "repeats": 1, "size": 3}
    first = ask(**pages)
    assert [item.item_id for item in first.items] == ["i4", "i3", "i5"]
    second = ask(**pages, state=first.following)
    assert set(found_by(second)) == {"i9", "i10"}
    assert set(found_by(second, "repeat")) == {"i8"}
    assert found_by(ask(**pages | {"count": 0, "repeats": 0}, state=first.following)) == {}


def test_the_past_is_not_read_where_neither_candidates_nor_a_score_need_it(ask, past, monkeypatch):
    def read(*_args):
        raise AssertionError("read")

    monkeypatch.setattr(UserPast, "of_user", lambda _self, rows, *_: read() if rows.size else UserSources())
    answer = ask(item_ids=("i30", "i9"), terms=SourceTerms(popular=1.0))
    assert len(answer.items) == 2
    for needs in ({}, {"item_ids": ("i30",), "terms": SourceTerms(repeat=1.0)}):
        with pytest.raises(AssertionError, match="read"):
            ask(**needs)
    with pytest.raises(AssertionError, match="read"):
        ask(item_ids=("i30",), past=replace(past, is_read=True))
    with pytest.raises(AssertionError, match="read"):
        ask(item_ids=("i30",), head_weights={"source:item_item": 1.0})


def test_the_newest_upserts_are_candidates_near_the_user_or_not(fakes):
    overlay = ItemOverlay()
    retrieval = RetrievalConfig(num_candidates=4, popular_candidates=0, fresh_candidates=2)
    engine = Engine(fakes.model(), overlay, policy=PolicyConfig(name="greedy"), retrieval=retrieval)
    # The price is the place in the user's line: far from the first ones.
    rows = [ItemRow(item_id=f"new{n}", category="rugs", price=100 * n) for n in range(3)]
    overlay.put([ItemPatch.of_row(row, at_ms) for at_ms, row in enumerate(rows, start=fakes.NOON_MS)])
    asked = RankRequest(user_id="u1", page_size=3, explain=True)
    answer = engine.score_candidates(asked, fakes.NOON_MS, Deadline.after(60)).page(40)
    assert {i.item_id for i in answer.items if "fresh" in i.sources} == {"new1", "new2"}
    assert answer.num_candidates == {"retrieval": 4, "fresh": 2}
