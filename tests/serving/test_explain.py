import numpy as np
import pytest

from recsys.config import PolicyConfig, RetrievalConfig
from serving.catalogue.overlay import ItemOverlay
from serving.engine import Engine
from serving.explanation import HistoryEvent, SimilarItem
from serving.request import Deadline, RankRequest


def ask(model, fakes, **request):
    engine = Engine(
        model,
        ItemOverlay(),
        policy=PolicyConfig(name="greedy", epsilon=0.0),
        retrieval=RetrievalConfig(),
    )
    asked = RankRequest(**{"user_id": "u1", "page_size": 5, **request})
    return engine.score_candidates(asked, fakes.NOON_MS, Deadline.after(60)).page(asked.page_size)


def user(fakes):
    past = [("i36", "click", 1), ("i20", "purchase", 2), ("i36", "purchase", 3), ("gone", "click", 4)]
    history = tuple(fakes.Past(item, kind, fakes.NOON_MS - 1000 * age) for item, kind, age in past)
    return fakes.User(user_id="u1", known=True, history=history)


def test_nothing_is_explained_unasked(fakes, monkeypatch) -> None:
    scorer = fakes.Scorer()
    model = fakes.model(scorer=scorer, u1=user(fakes))
    plain = ask(model, fakes)
    assert scorer.gate_calls == 0
    assert plain.explanation is None
    assert all(item.explanation is None for item in plain.items)
    monkeypatch.setattr("serving.engine.Explainer", None)
    assert ask(model, fakes).items == plain.items
    with pytest.raises(TypeError):
        ask(model, fakes, explain=True)


@pytest.mark.parametrize("weight", [2.0, -2.0])
def test_the_parts_add_up_to_the_score(fakes, weight) -> None:
    """Also where the first item is not the first candidate: with a weight below 0 the last one is."""
    answer = ask(fakes.model(), fakes, explain=True, head_weights={"click": 0.0, "purchase": weight})
    assert answer.items[0].item_id == ("i39" if weight > 0 else "i0")
    assert answer.explanation.formula == "additive"
    assert answer.explanation.weights["purchase"] == weight
    for item in answer.items:
        assert item.explanation.contributions.keys() == {"purchase", "rating"}
        assert sum(item.explanation.contributions.values()) == pytest.approx(item.score)
        part = item.explanation.contributions["purchase"]
        assert part == pytest.approx(weight * item.predictions["purchase"])


def test_the_nearest_items_of_the_history(fakes) -> None:
    answer = ask(fakes.model(u1=user(fakes)), fakes, explain=True)
    nearest = {item.item_id: item.explanation.nearest for item in answer.items}
    assert [(near.item_id, near.kind) for near in nearest["i39"]] == [("i36", "click"), ("i20", "purchase")]
    assert nearest["i39"][0].cosine == pytest.approx(np.cos(0.3))
    assert nearest["i39"][0].title == "Thing 36"
    assert [near.item_id for near in nearest["i36"]] == ["i20"], "an item is not its own neighbour"


def test_the_history_and_the_gates(fakes) -> None:
    answer = ask(fakes.model(u1=user(fakes)), fakes, explain=True)
    assert [(e.item_id, e.kind, e.age_s) for e in answer.explanation.history] == [
        ("i36", "click", 1.0),
        ("i20", "purchase", 2.0),
        ("i36", "purchase", 3.0),
        ("gone", "click", 4.0),
    ]
    gates = {item.item_id: item.explanation.gates["click"] for item in answer.items}
    assert gates["i39"] == (0.75, 0.25)
    assert gates["i36"] == (0.0, 1.0)


def test_a_similarity_has_no_parts(fakes) -> None:
    answer = ask(fakes.model(), fakes, explain=True, seed_item_id="i20")
    assert all(item.explanation.contributions == {} for item in answer.items)
    assert all(item.explanation.gates for item in answer.items)


def test_explanations_reach_the_client(start, fakes) -> None:
    loader = fakes.Loader()
    loader.users["u1"] = user(fakes)
    one = start(loader=loader)
    answer = one.client.recommend(
        "u1", 5, debug={"explain": True, "seed": 1}
    )  # a seed whose coin explores nothing
    assert answer.history[0].item_id == "i36"
    assert isinstance(answer.history[0], HistoryEvent)
    assert answer.history[1].age_s - answer.history[0].age_s == pytest.approx(1.0)
    assert answer.formula == "additive"
    assert set(answer.weights) == {"click", "purchase", "rating"}
    best = answer.items[0].explanation
    assert sum(best.contributions.values()) == pytest.approx(answer.items[0].score)
    assert best.nearest[0] == SimilarItem(
        item_id="i36", title="Thing 36", kind="click", cosine=pytest.approx(np.cos(0.3))
    )
    assert best.gates == {"click": (0.75, 0.25)}
    assert one.client.recommend("u1", 5).items[0].explanation is None
