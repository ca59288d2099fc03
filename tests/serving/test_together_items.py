"""Items that others took with the user's latest ones are candidates, with that source and reason."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.config import PolicyConfig, RetrievalConfig
from serving.catalogue import ItemPatch, ItemRow
from serving.catalogue.overlay import ItemOverlay
from serving.engine import Engine
from serving.request import Deadline, Filter, RankRequest
from serving.together_items import TogetherItems


@pytest.fixture
def together() -> TogetherItems:
    """Item n goes with n + 1 and n + 2, the last ones with nothing."""
    rows = np.arange(40)[:, None] + np.array([1, 2])
    return TogetherItems(
        neighbours=np.where(rows < 40, rows, -1).astype(np.int32), kinds=frozenset({"click"})
    )


@pytest.fixture
def ask(fakes, together):
    def ask(history=("i3", "i8"), kind="click", together=together, count=50, **request):
        past = tuple(fakes.Past(item_id, kind) for item_id in history)
        user = fakes.User(user_id="u1", known=True, history=past)
        engine = Engine(
            replace(fakes.model(u1=user), together=together),
            ItemOverlay(),
            policy=PolicyConfig(name="greedy"),
            retrieval=RetrievalConfig(num_candidates=4, popular_candidates=0, together_candidates=count),
        )
        asked = RankRequest(user_id="u1", page_size=3, explain=True, **request)
        return engine.score_candidates(asked, fakes.NOON_MS, Deadline.after(60)).page(40)

    return ask


def sources(answer):
    return {item.item_id: item.sources for item in answer.items if "together" in item.sources}


def test_neighbours_of_the_latest_items_are_candidates(ask):
    answer = ask()
    assert set(sources(answer)) == {"i4", "i5", "i9", "i10"}
    assert answer.num_candidates == {"retrieval": 4, "together": 4}
    assert sources(ask(history=("i37",))) == {
        "i38": ("retrieval", "together"),
        "i39": ("retrieval", "together"),
    }


def test_as_many_as_the_config_says_the_nearest_of_each_first(ask):
    assert set(sources(ask(count=2))) == {"i4", "i9"}
    assert sources(ask(count=0)) == {}


def test_forbidden_neighbours_make_room_for_others(ask):
    denied = Filter(deny_item_ids=frozenset({"i4", "i9"}))
    assert set(sources(ask(count=2, filter=denied))) == {"i5", "i10"}


@pytest.mark.parametrize("history", [(), ("i39",), ("gone",)])
def test_without_neighbours_there_are_none(ask, history):
    assert sources(ask(history=history)) == {}


def test_other_kinds_and_bundles_without_neighbours(ask):
    assert sources(ask(kind="rating")) == {}
    assert sources(ask(together=TogetherItems())) == {}


def test_a_seed_has_its_own_list(ask):
    assert sources(ask(seed_item_id="i20")) == {}


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
