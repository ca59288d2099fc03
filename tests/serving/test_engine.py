from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.taken_events import TakenEvents
from recsys.config import PolicyConfig, RetrievalConfig
from recsys.user_past import UserPast
from serving.catalogue import ItemPatch, ItemRow
from serving.catalogue.overlay import ItemOverlay
from serving.engine import Engine
from serving.request import (
    Deadline,
    ExpiredError,
    FieldError,
    Filter,
    OverloadedError,
    Pin,
    RankRequest,
)
from serving.stage_costs import StageCosts

NO_EXPLORING = {"name": "greedy"}


@pytest.fixture
def engine(fakes) -> Callable[..., Engine]:
    def make(
        model: Any = None, overlay: ItemOverlay | None = None, policy: Any = None, **retrieval: int
    ) -> Engine:
        return Engine(
            model or fakes.model(),
            overlay or ItemOverlay(),
            policy=PolicyConfig(**(policy or NO_EXPLORING)),
            retrieval=RetrievalConfig(**retrieval),
        )

    return make


def upserted(at_ms: int = 0, **row: Any) -> ItemPatch:
    """A patch that makes the item this row."""
    return ItemPatch.of_row(ItemRow(**row), at_ms)


def test_a_warm_engine_has_encoded_an_item_so_that_no_upsert_waits_for_imports(engine, fakes) -> None:
    encoded: list[list[int]] = []

    def encode(items: Any) -> Any:
        encoded.append(list(items))
        return dict.fromkeys(items, 0.0)

    made = engine(replace(fakes.model(), encode_items=encode))
    made.warm(fakes.NOON_MS)
    assert encoded == [[0]]


def ask(engine: Engine, fakes: SimpleNamespace, seconds: float = 60, **request: Any) -> Any:
    asked = RankRequest(**{"user_id": "u1", "page_size": 5, **request})
    return engine.score_candidates(asked, fakes.NOON_MS, Deadline.after(seconds)).page(asked.page_size)


def ids(answer: Any) -> list[str]:
    return [item.item_id for item in answer.items]


def test_the_best_scores_come_first(engine, fakes) -> None:
    answer = ask(engine(), fakes)
    assert ids(answer) == ["i39", "i38", "i37", "i36", "i35"]
    assert [item.position for item in answer.items] == [1, 2, 3, 4, 5]
    assert answer.items[0].predictions == pytest.approx({"click": 0.4, "purchase": 0.04, "rating": 2.6})
    assert answer.items[0].score == pytest.approx(0.4 + 5 * 0.04 + 0.02 * 2.6)
    assert (answer.bundle_version, answer.degradation) == ("v1", ())


def test_head_weights_change_the_order(engine, fakes) -> None:
    answer = ask(engine(), fakes, head_weights={"click": -1.0, "purchase": 0.0, "rating": 0.0})
    assert ids(answer) == ["i0", "i1", "i2", "i3", "i4"]


def test_a_weight_for_an_unknown_task_is_the_callers_mistake(engine, fakes) -> None:
    with pytest.raises(
        FieldError, match=r"^head_weights: no task is called 'like'; known tasks: click, purchase"
    ):
        ask(engine(), fakes, head_weights={"like": 1.0})


def test_what_the_user_bought_is_not_recommended_but_ranked_when_asked_for(engine, fakes) -> None:
    user = fakes.User(
        user_id="u1", known=True, seen={"purchase": frozenset({"i39"}), "click": frozenset({"i38"})}
    )
    one = engine(fakes.model(u1=user))
    assert ids(ask(one, fakes))[:2] == ["i38", "i37"]
    assert ids(ask(one, fakes, item_ids=("i39", "i1"))) == ["i39", "i1"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(categories=frozenset({"rugs"})), ["i38", "i34", "i30"]),
        (Filter(min_price=300, max_price=500), ["i5", "i4", "i3"]),
        (Filter(allow_item_ids=frozenset({"i7", "i9", "nothing"})), ["i9", "i7"]),
        (Filter(deny_item_ids=frozenset({"i39", "i38"})), ["i37", "i36", "i35"]),
        (Filter(categories=frozenset({"rugs"}), max_price=600), ["i6", "i2"]),
        (Filter(categories=frozenset({"boats"})), []),
    ],
)
def test_filters(engine, fakes, wanted, expected) -> None:
    assert ids(ask(engine(), fakes, filter=wanted, page_size=3)) == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    deny=st.frozensets(st.integers(0, 39)),
    categories=st.frozensets(st.sampled_from(["lamps", "chairs", "rugs", "plants"])),
    low=st.none() | st.integers(0, 4_000),
    page_size=st.integers(1, 50),
    few=st.integers(1, 10),
    obedient=st.booleans(),
)
def test_never_a_forbidden_item_and_never_a_hole(
    engine, fakes, deny, categories, low, page_size, few, obedient
) -> None:
    """Also with an index that ignores its filter, and with far fewer candidates than positions."""
    wanted = Filter(categories=categories, min_price=low, deny_item_ids=frozenset(f"i{n}" for n in deny))
    one = engine(
        fakes.model(scorer=fakes.Scorer(obedient=obedient)), num_candidates=few, popular_candidates=2
    )
    found = ids(ask(one, fakes, filter=wanted, page_size=page_size))
    allowed = {
        f"i{n}"
        for n in range(40)
        if n not in deny
        and (not categories or ("lamps", "chairs", "rugs", "plants")[n % 4] in categories)
        and (low is None or 100 * n >= low)
    }
    assert set(found) <= allowed
    assert len(found) == len(set(found)) == min(page_size, len(allowed))


def test_similar_items_leave_the_seed_out(engine, fakes) -> None:
    answer = ask(engine(num_candidates=3), fakes, seed_item_id="i10", page_size=3)
    assert sorted(ids(answer)) == ["i11", "i12", "i9"], "i8 is as similar as i12, and liked less"
    assert answer.items[0].reasons == ("similar to Thing 10",)
    assert answer.items[0].sources == ("similar",)


def test_similar_items_are_ordered_by_the_seed_not_by_the_users_taste(engine, fakes) -> None:
    """Also when all items of a small catalogue are candidates."""
    for seed, expected in (("i10", "i13 i12 i11 i9 i8 i7"), ("i36", "i39 i38 i37 i35 i34 i33")):
        answer = ask(engine(), fakes, seed_item_id=seed, page_size=39)
        assert ids(answer)[:6] == expected.split()
        similar = {
            item.item_id for item in answer.items if item.reasons[:1] == (f"similar to Thing {seed[1:]}",)
        }
        angles = {f"i{n}": abs(n - int(seed[1:])) / 10 for n in range(40)}
        assert similar == {item_id for item_id, angle in angles.items() if angle > 0 and np.cos(angle) >= 0.5}
        assert [item.score for item in answer.items] == sorted((i.score for i in answer.items), reverse=True)


def test_taste_orders_similar_items_within_a_step_of_their_cosine(engine, fakes) -> None:
    def similar(step: float) -> list[str]:
        one = engine(policy={**NO_EXPLORING, "similar_step": step})
        return ids(ask(one, fakes, seed_item_id="i20", page_size=6))

    assert [{*similar(0.0)[n : n + 2]} for n in (0, 2, 4)] == [{"i19", "i21"}, {"i18", "i22"}, {"i17", "i23"}]
    assert similar(0.01) == ["i21", "i19", "i22", "i18", "i23", "i17"]
    assert similar(1.0) == ["i35", "i34", "i33", "i32", "i31", "i30"]  # all of a cosine from 0 to 1


def test_without_time_to_predict_similar_items_are_still_similar(engine, fakes) -> None:
    one = engine()
    slow(one, 1_000)
    answer = ask(one, fakes, seconds=3_000, seed_item_id="i20", page_size=4)
    assert answer.degradation == ("DEADLINE_POPULAR",)
    assert set(ids(answer)) == {"i18", "i19", "i21", "i22"}


def test_an_unknown_seed_is_reported_and_the_user_is_answered(engine, fakes) -> None:
    answer = ask(engine(), fakes, seed_item_id="nothing")
    assert answer.missing_item_ids == ("nothing",)
    assert ids(answer)[0] == "i39"


def test_unknown_allowed_ids_are_reported_and_excluded_or_denied_ones_are_not(engine, fakes) -> None:
    wanted = Filter(allow_item_ids=frozenset({"zzz", "i3", "aaa"}), deny_item_ids=frozenset({"denied"}))
    answer = ask(engine(), fakes, filter=wanted, exclude_item_ids=frozenset({"excluded"}))
    assert ids(answer) == ["i3"]
    assert answer.missing_item_ids == ("aaa", "zzz")


def test_rank_orders_the_callers_items_and_reports_unknown_ones(engine, fakes) -> None:
    answer = ask(engine(), fakes, item_ids=("i3", "nothing", "i7", "i5"))
    assert ids(answer) == ["i7", "i5", "i3"]
    assert answer.missing_item_ids == ("nothing",)
    assert {item.sources for item in answer.items} == {("request",)}


def test_pins_are_placed_and_unknown_or_forbidden_ones_reported(engine, fakes) -> None:
    pins = (Pin(item_id="i0", position=2), Pin(item_id="nothing", position=1), Pin(item_id="i5", position=3))
    answer = ask(engine(), fakes, pins=pins, exclude_item_ids=frozenset({"i5"}))
    assert ids(answer) == ["i39", "i0", "i38", "i37", "i36"]
    assert answer.items[1].propensity_kind == "pinned"
    assert answer.items[1].reasons == ("chosen by hand",)
    assert answer.missing_item_ids == ("nothing", "i5")


def test_an_unknown_user_gets_a_cold_answer(engine, fakes) -> None:
    answer = ask(
        engine(fakes.model(scorer=fakes.Scorer(num_items=12))), fakes, user_id="stranger", page_size=12
    )
    assert len(answer.items) == 12
    assert answer.degradation == ()
    assert "popular in plants" in [reason for item in answer.items for reason in item.reasons]


def test_reasons_name_what_the_user_did(engine, fakes) -> None:
    user = fakes.User(
        user_id="u1", known=True, history=(fakes.Past("i37", "click"), fakes.Past("i3", "rating"))
    )
    answer = ask(engine(fakes.model(u1=user)), fakes, page_size=40)
    reasons = {item.item_id: item.reasons[0] for item in answer.items}
    assert reasons["i39"] == "similar to Thing 37 you clicked"
    assert reasons["i2"] == "similar to Thing 3 you rated"
    assert reasons["i20"] == "fits your taste"


def test_a_withdrawn_item_is_gone_and_comes_back(engine, fakes) -> None:
    overlay = ItemOverlay()
    one = engine(overlay=overlay)
    overlay.put([upserted(item_id="i39", title="Thing 39", price=3_900, available_until_ms=fakes.NOON_MS)])
    assert ids(ask(one, fakes))[0] == "i38"
    assert ids(ask(one, fakes, filter=Filter(include_unavailable=True)))[0] == "i39"
    overlay.put([upserted(item_id="i39", title="Back again", price=3_900)])
    answer = ask(one, fakes)
    assert (answer.items[0].item_id, answer.items[0].title) == ("i39", "Back again")


def test_a_new_item_is_a_candidate_at_once_scored_by_its_content(engine, fakes) -> None:
    overlay = ItemOverlay()
    one = engine(overlay=overlay, num_candidates=5)
    overlay.put([upserted(item_id="new", title="New", category="boats", price=3_750)])
    answer = ask(one, fakes)
    assert ids(answer) == ["i39", "i38", "new", "i37", "i36"]
    assert answer.items[2].predictions["click"] == pytest.approx(0.385)
    assert [item.sources for item in answer.items[1:3]] == [("retrieval",), ("retrieval", "fresh")]
    assert ids(ask(one, fakes, item_ids=("i3", "new", "i38"))) == ["i38", "new", "i3"]
    assert ids(ask(one, fakes, filter=Filter(allow_item_ids=frozenset({"new"})))) == ["new"]
    assert "new" not in ids(ask(one, fakes, filter=Filter(deny_item_ids=frozenset({"new"}))))
    assert ids(ask(one, fakes, pins=(Pin(item_id="new", position=1),)))[0] == "new"
    assert sorted(ids(ask(one, fakes, seed_item_id="new"))) == ["i35", "i36", "i37", "i38", "i39"]
    assert ids(ask(one, fakes, seed_item_id="i38", page_size=3)) == ["i39", "new", "i37"]


def test_a_changed_item_is_scored_by_what_it_is_now(engine, fakes) -> None:
    overlay = ItemOverlay()
    one = engine(overlay=overlay)
    overlay.put([upserted(item_id="i0", price=9_900), upserted(item_id="i39", price=100)])
    answer = ask(one, fakes)
    assert ids(answer)[:2] == ["i0", "i38"]
    assert answer.items[0].predictions["click"] == pytest.approx(1.0)
    assert answer.items[0].sources == ("retrieval", "popular")


def test_upserts_older_than_the_bundles_snapshot_are_in_it_already(engine, fakes) -> None:
    overlay = ItemOverlay()
    overlay.put(
        [
            upserted(item_id="i39", available_until_ms=0, at_ms=5),
            upserted(item_id="i38", price=3_800, at_ms=15),
        ]
    )
    one = engine(replace(fakes.model(), items_as_of_ms=10), overlay=overlay)
    answer = ask(one, fakes)
    assert ids(answer)[0] == "i39"
    assert answer.items[1].title is None


def test_a_dead_store_is_told_and_not_explored(engine, fakes) -> None:
    user = fakes.User(user_id="u1", known=False, degraded=("STORE_UNAVAILABLE",))
    answer = ask(engine(fakes.model(u1=user), policy={"epsilon": 1.0}), fakes)
    assert answer.degradation == ("STORE_UNAVAILABLE",)
    assert not answer.explored
    assert {item.propensity_kind for item in answer.items} == {"degraded"}


def test_without_a_model_popularity_is_the_score(engine, fakes) -> None:
    model = replace(fakes.model(version=None), scorer=None, features=None)
    answer = ask(engine(model), fakes, page_size=12, head_weights={"click": 2.0})
    assert ids(answer)[:10] == [f"i{n}" for n in range(10)]
    assert len(answer.items) == 12
    assert answer.degradation == ("NO_BUNDLE",)
    assert answer.items[0].predictions == {}


def test_without_a_model_the_seed_is_left_out_too(engine, fakes) -> None:
    """It came first, when it was the most popular item."""
    without = engine(replace(fakes.model(version=None), scorer=None, features=None))
    assert ids(ask(without, fakes, seed_item_id="i0")) == ["i1", "i2", "i3", "i4", "i5"]


def test_without_a_model_the_pages_hold_every_item_once(engine, fakes) -> None:
    one = engine(replace(fakes.model(version=None), scorer=None, features=None), num_candidates=4)
    asked, shown, state = RankRequest(user_id="u1", page_size=7), [], None
    for size in (7, 7, 7, 7, 7, 5):
        answer = one.score_candidates(asked, fakes.NOON_MS, Deadline.after(60), state=state).page(7)
        assert len(answer.items) == size
        shown, state = [*shown, *ids(answer)], answer.following
    assert state is None
    assert sorted(shown) == sorted(f"i{n}" for n in range(fakes.NUM_ITEMS))


def slow(one: Engine, seconds_each: float, retrieval_s: float = 1e-6) -> None:
    """Hours, so that what the test itself takes does not count."""
    one._costs = StageCosts()
    for _ in range(50):
        one._costs.observe(retrieval_s, seconds_each, 1)


def test_a_short_deadline_gets_fewer_candidates(engine, fakes) -> None:
    one = engine()
    slow(one, 100)
    answer = ask(one, fakes, seconds=3_000)
    assert answer.degradation == ("DEADLINE_FEWER_CANDIDATES",)
    assert ids(answer) == ["i39", "i38", "i37", "i36", "i35"]


def test_what_was_spent_on_retrieval_is_not_subtracted_again(engine) -> None:
    """Retrieval takes an hour; scoring takes no time, and there is an hour for it when that is over."""
    one = engine()
    slow(one, 1e-6, retrieval_s=3_600)
    assert one._costs.affordable(300, 3_600) == 0
    assert one._costs.affordable(300, 3_600, found=True) == 300


def test_retrieval_that_took_too_long_leaves_fewer_candidates(engine, fakes) -> None:
    """At first nothing is known of the costs; what is learned meanwhile decides after the search."""
    scorer = fakes.Scorer()
    one = engine(fakes.model(scorer=scorer))
    search = scorer.retrieve
    scorer.retrieve = lambda *given: slow(one, 100) or search(*given)
    answer = ask(one, fakes, seconds=3_000)
    assert answer.degradation == ("DEADLINE_FEWER_CANDIDATES",)
    assert ids(answer) == ["i39", "i38", "i37", "i36", "i35"]


def test_without_time_the_index_is_not_searched(engine, fakes) -> None:
    scorer = fakes.Scorer()
    one = engine(fakes.model(scorer=scorer))
    slow(one, 1e-6, retrieval_s=36_000)
    scorer.retrieve = scorer.similar = None
    for request in ({}, {"seed_item_id": "i5"}):
        answer = ask(one, fakes, seconds=3_000, **request)
        assert answer.degradation == ("DEADLINE_POPULAR",)
        assert len(answer.items) == 5
        assert scorer.calls == 0


def test_without_time_to_score_a_recent_answer_is_ranked_again(engine, fakes) -> None:
    """Availability, denied and seen items are those of now; another user or filter has no such list."""
    overlay, user = ItemOverlay(), fakes.User(user_id="u1", known=True)
    one = engine(fakes.model(u1=user), overlay, policy={"epsilon": 1.0, "temperature": 10.0})
    full = ask(one, fakes, page_size=8, seconds=3_000)
    slow(one, 1_000)
    overlay.put([ItemPatch(item_id="i39", fields={"available_until": fakes.NOON_MS}, at_ms=fakes.NOON_MS)])
    user.seen = {"purchase": frozenset({"i38"})}
    pins = (Pin(item_id="i2", position=2),)
    answer = ask(one, fakes, seconds=3_000, exclude_item_ids=frozenset({"i37"}), pins=pins)
    assert full.degradation == ()
    assert answer.degradation == ("DEADLINE_CACHED",)
    assert ids(answer) == ["i36", "i2", "i35", "i34", "i33"]
    assert {item.propensity_kind for item in answer.items} == {"degraded"}
    assert answer.items[0].score == max(item.score for item in answer.items)
    for request in ({"user_id": "u2"}, {"filter": Filter(categories=frozenset({"rugs"}))}):
        assert ask(one, fakes, seconds=3_000, **request).degradation == ("DEADLINE_POPULAR",)


def test_a_recent_answer_is_forgotten_after_ten_minutes_and_when_too_little_of_it_is_left(
    engine, fakes
) -> None:
    one = engine(num_candidates=6, popular_candidates=0)
    request = RankRequest(user_id="u1", page_size=5)
    one.score_candidates(request, fakes.NOON_MS, Deadline.after(3_000))
    slow(one, 1_000)

    def degradation(after_ms: int = 0, **changes: Any) -> tuple[str, ...]:
        asked = replace(request, **changes)
        return one.score_candidates(asked, fakes.NOON_MS + after_ms, Deadline.after(3_000)).degradation

    assert degradation(after_ms=600_000) == ("DEADLINE_CACHED",)
    assert degradation(after_ms=600_001) == ("DEADLINE_POPULAR",)
    assert degradation(exclude_item_ids=frozenset({"i39", "i38"})) == ("DEADLINE_POPULAR",)


def test_an_item_that_was_only_pinned_is_no_candidate_of_the_next_answer(engine, fakes) -> None:
    one = engine(num_candidates=8, popular_candidates=0)
    ask(one, fakes, seconds=3_000, pins=(Pin(item_id="i2", position=1), Pin(item_id="i39", position=2)))
    slow(one, 1_000)
    answer = ask(one, fakes, seconds=3_000, page_size=7)
    assert answer.degradation == ("DEADLINE_CACHED",)
    assert ids(answer)[0] == "i39"
    assert "i2" not in ids(answer)
    assert {source for item in answer.items for source in item.sources} == {"retrieval"}


def test_a_recent_answer_fills_the_page_and_does_not_end_the_list(engine, fakes) -> None:
    one = engine(num_candidates=6, popular_candidates=0)
    ask(one, fakes, seconds=3_000)
    slow(one, 1_000)
    answer = ask(one, fakes, seconds=3_000)
    assert answer.degradation == ("DEADLINE_CACHED",)
    assert answer.following is not None
    answer = ask(one, fakes, seconds=3_000, page_size=6)
    assert answer.degradation == ("DEADLINE_POPULAR",)
    assert answer.following is not None


def test_the_callers_few_candidates_are_ranked_as_lately(engine, fakes) -> None:
    one, item_ids = engine(), ("i3", "gone", "i7", "i5")
    ask(one, fakes, seconds=3_000, item_ids=item_ids)
    slow(one, 1_000)
    answer = ask(one, fakes, seconds=3_000, item_ids=item_ids)
    assert answer.degradation == ("DEADLINE_CACHED",)
    assert ids(answer) == ["i7", "i5", "i3"]


def test_a_request_that_nobody_waits_for_any_more_is_not_scored(engine, fakes) -> None:
    scorer = fakes.Scorer()
    one = engine(fakes.model(scorer=scorer))
    with pytest.raises(ExpiredError):
        one.score_candidates(
            RankRequest(user_id="u1"), fakes.NOON_MS, Deadline.after(60.0, given_up=lambda: True)
        )
    assert scorer.calls == 0


def test_the_store_gets_a_share_of_the_time_left(engine, fakes) -> None:
    given = []
    model = fakes.model()
    read = model.features.user
    model.features.user = lambda user, at_ms, within_s: given.append(within_s) or read(user, at_ms)
    ask(engine(model), fakes, seconds=100.0)
    assert given == [pytest.approx(30.0, rel=0.1)]


def test_more_pins_than_can_be_scored_in_time(engine, fakes) -> None:
    one = engine()
    slow(one, 100)
    pins = tuple(Pin(item_id=f"i{n}", position=n + 1) for n in range(30))
    answer = ask(one, fakes, seconds=3_000, pins=pins)
    assert ids(answer) == ["i0", "i1", "i2", "i3", "i4"]
    assert answer.degradation == ("DEADLINE_POPULAR",)


def test_a_shorter_one_gets_the_popular_list_unscored(engine, fakes) -> None:
    scorer = fakes.Scorer()
    one = engine(fakes.model(scorer=scorer))
    slow(one, 1_000)
    answer = ask(one, fakes, seconds=3_000)
    assert answer.degradation == ("DEADLINE_POPULAR",)
    assert ids(answer) == ["i0", "i1", "i2", "i3", "i4"]
    assert scorer.calls == 0


def test_slowness_is_forgotten(engine, fakes) -> None:
    one = engine()
    slow(one, 1_000)
    degraded = [ask(one, fakes, seconds=5_000).degradation for _ in range(60)]
    assert degraded[0] == ("DEADLINE_POPULAR",)
    assert degraded[-1] == ()


def test_no_time_at_all_is_shed(engine, fakes) -> None:
    scorer = fakes.Scorer()
    with pytest.raises(OverloadedError, match="no time left"):
        ask(engine(fakes.model(scorer=scorer)), fakes, seconds=0.0)
    assert scorer.calls == 0


def test_a_seed_repeats_the_list(engine, fakes) -> None:
    one = engine(policy={"epsilon": 1.0, "temperature": 1.0})
    first, second = (ask(one, fakes, seed=7, page_size=10) for _ in range(2))
    assert ids(first) == ids(second)
    assert first.explored
    assert len({tuple(ids(ask(one, fakes, page_size=10))) for _ in range(5)}) > 1


def test_mmr_uses_the_bundles_vectors(engine, fakes) -> None:
    spread = ask(engine(policy={"name": "greedy", "mmr": 1.0}), fakes)
    cosines = fakes.Scorer().vectors(np.array([int(item.item_id[1:]) for item in spread.items[:2]]))
    assert float(cosines[0] @ cosines[1]) < 0.0


@pytest.mark.parametrize(
    "request_", [{}, {"item_ids": ("i39", "i38", "i37", "i1")}], ids=["recommend", "rank"]
)
def test_what_was_taken_before_is_capped_whoever_chose_the_candidates(engine, fakes, request_) -> None:
    """Also where no source that reads the past has a weight."""
    taken = TakenEvents(item_ids=["i39", "i38"], kinds=["click"] * 2, at_ms=np.full(2, fakes.NOON_MS - 1))
    user, past = (
        fakes.User(user_id="u1", known=True, taken=taken),
        UserPast(repeat_kinds=frozenset({"click"})),
    )
    one = engine(
        replace(fakes.model(u1=user), past=past),
        policy={"name": "greedy", "repeat": "learn", "max_repeats": 1},
    )
    answer = ask(one, fakes, page_size=3, **request_)
    assert ids(answer)[:2] == ["i39", "i37"]


def test_an_empty_catalogue_answers_an_empty_list(engine, fakes) -> None:
    model = fakes.model(scorer=fakes.Scorer(num_items=0))
    assert not ask(engine(model), fakes).items
