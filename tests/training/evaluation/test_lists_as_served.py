"""The lists that evaluation measures are those that a server's own engine makes, whatever score and rules."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from recsys.log import period_end
from recsys.source_terms import NO_SOURCES, SourceTerms
from serving.request import Deadline, RankRequest
from training.evaluation.audience import find_audience
from training.evaluation.candidates import Sources
from training.evaluation.list_metrics import mean_metrics, score_lists
from training.evaluation.lists import ranked_lists, scored_users
from training.evaluation.row_sources import sources_of_rows
from training.publish import popular_items
from training.source_fit import _problem

LAST = 5
LEARN = {"repeat": "learn", "repeat_kinds": ("click",)}
BY_PAST = SourceTerms(repeat=1.0, item_item=2.0, repeat_days=2.0, item_item_days=1.0)
OTHERWISE_COUNTED = BY_PAST.model_copy(
    update={"item_item_order": True, "item_item_attributes": True, "item_item_walks": 0.3}
)
BY_ALL = SourceTerms(retrieval=0.5, item_item=1.0, popular=0.3, item_bias=0.4, newcomer=0.2)


@pytest.fixture(scope="module")
def audience(shop_chain, config):
    return find_audience(shop_chain, LAST, config, max_users=None, seed=0)


FEW = {"num_candidates": 12, "popular_candidates": 6}
FEW_NEAR = {"candidates": 4}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"weights": {"click": -1.0}},
        {"weights": {"click": 0.0, "purchase": 3.0, "rating": 0.2}, "retrieval": FEW, "item_item": FEW_NEAR},
        {"policy": {"max_per_category": 2}, "retrieval": FEW, "item_item": FEW_NEAR},
        {"policy": {"mmr": 0.5}},
        {"retrieval": {"num_candidates": 3, "popular_candidates": 0}, "item_item": {"candidates": 0}},
        {"sources": OTHERWISE_COUNTED, "retrieval": FEW, "policy": LEARN},
        {"sources": BY_ALL, "weights": {"purchase": -1.0}},
        {"sources": SourceTerms(repeat=1.0), "policy": LEARN | {"max_repeats": 2}},
    ],
    ids=[
        "as it is",
        "turned around",
        "another score",
        "caps",
        "similarity",
        "too few are found",
        "repeats",
        "all sources",
        "capped repeats",
    ],
)
def test_a_list_is_the_first_page_of_a_server(predictor, shop_chain, change, changed, engine_of):
    _assert_served(changed(predictor, **change), shop_chain, engine_of)


def test_a_ranker_that_reads_the_past_is_served_with_every_encoder(reading, shop_chain, changed, engine_of):
    encoder = reading.bundle.config.model.history.encoder
    other_days = encoder == "hstu"  # what the ranker reads is then scored apart from the sources
    mine = changed(reading, sources=BY_PAST if other_days else NO_SOURCES)
    scored = _assert_served(mine, shop_chain, engine_of)
    engine = engine_of(mine, shop_chain, LAST)
    engine.model = dataclasses.replace(
        engine.model, past=dataclasses.replace(engine.model.past, is_read=False)
    )
    apart = [
        np.abs(engine.score_candidates(*asked, explore=False).predictions["click"] - of.predictions["click"])
        for asked, of in scored
    ]
    assert np.concatenate(apart).max() > 1e-3, "what is read must matter for this to mean something"


def _assert_served(mine, shop_chain, engine_of):
    """Give each request and what the engine scored of it."""
    answers, audience = [], find_audience(shop_chain, LAST, mine.bundle.config, max_users=None, seed=0)
    lists, engine = ranked_lists(mine, audience), engine_of(mine, shop_chain, LAST)
    ids = audience.catalogue["item_id"]
    for u, request in enumerate(audience.requests.iter_rows(named=True)):
        asked = RankRequest(
            user_id=request["user_id"],
            context={"device": request["context_device"]},
            exclude_item_ids=frozenset(ids.filter(pl.Series(~audience.available))),
        )
        at_ms = int(request["shown_at"].timestamp() * 1000)
        whole = (asked, at_ms, Deadline.after(60.0))
        scored = engine.score_candidates(*whole, explore=False)
        answers.append((whole, scored))
        assert scored.degradation == ()
        page = scored.page(10)
        candidates = lists.candidates[u][lists.candidates[u] >= 0]
        assert set(ids.gather(candidates)) == set(scored.item_ids)
        # Two items whose scores differ by rounding may change places.
        score = dict(zip(scored.item_ids, scored.policy_input.scores, strict=True))
        found = [score[item] for item in ids.gather(lists.ranked[u][lists.ranked[u] >= 0])]
        np.testing.assert_allclose(found, page.items.scores, atol=1e-5)
    return answers


def test_a_score_that_is_turned_around_shows_in_the_lists(audience, predictor, changed):
    """The two towers find the same; what is shown of it is what others click least."""
    as_it_is, turned = (
        mean_metrics([score_lists(audience, ranked_lists(changed(predictor, weights), audience))]).values
        for weights in ({"click": 1.0}, {"click": -1.0, "purchase": 0.0, "rating": 0.0})
    )
    assert turned["recall_at_50"] == as_it_is["recall_at_50"]
    assert turned["recall_at_all"] == as_it_is["recall_at_all"]
    assert turned["ndcg_at_10"] < as_it_is["ndcg_at_10"]


def test_what_retrieval_finds_is_another_order_only_where_the_sources_were_fitted(
    audience, predictor, changed
):
    of_retrieval, by_rule, fitted = (
        ranked_lists(changed(predictor, sources=SourceTerms(**weights)), audience).retrieved
        for weights in ({}, {"item_item": 0.3, "item_bias": 0.1}, {"item_item": 0.3})
    )
    np.testing.assert_array_equal(by_rule, of_retrieval)
    assert (fitted != of_retrieval).any()


def test_popular_items_are_those_of_the_day_before(audience, predictor, shop_chain, changed):
    """The bundle's own list counts the day that is measured, too."""
    few = {"num_candidates": 1, "popular_candidates": 5}
    lists = ranked_lists(changed(predictor, retrieval=few, item_item={"candidates": 0}), audience)
    config, items = predictor.bundle.config, shop_chain[LAST - 1].table("items")
    popular = popular_items(items, config, period_end(shop_chain[LAST - 1].day, "UTC"))
    rows = {item: row for row, item in enumerate(audience.catalogue["item_id"])}
    in_order = np.array([rows[item] for item in popular["item_id"]])
    for u, found in enumerate(lists.candidates):
        allowed = audience.allowed(slice(u, u + 1))[0]
        assert set(in_order[allowed[in_order]][:5]) <= set(found)


def test_rows_and_what_weights_are_fitted_on_have_the_scores_of_the_lists(
    audience, predictor, shop_chain, changed
):
    """Of rows the past ends as the day starts, so it is up to a day younger: 3 % of half-lives of 30 days."""
    every = BY_ALL.model_copy(update={"repeat": 0.7})
    model = changed(predictor, sources=every, policy=LEARN).lists
    sources = Sources.of(audience, model.config, terms=every, bias=model.item_bias)
    users = [user for block, _ in scored_users(model, audience, sources, every) for user in block]
    heads_alone = dataclasses.replace(model, fusion=model.fusion.with_sources(NO_SOURCES))
    problem = _problem(heads_alone, [audience], every)
    ids, names = audience.catalogue["item_id"], audience.requests["user_id"]
    for user in users:
        rows = user.candidates.rows
        shown = pl.DataFrame({"item_id": [*ids.gather(rows), "of today"], "user_id": names[user.user]})
        found = sources_of_rows(model, shop_chain, LAST, shown)
        assert set(found) == {"item_item", "repeat", "popular", "item_bias", "newcomer"}
        for name, values in found.items():
            np.testing.assert_allclose(values[:-1], user.sources[name], rtol=0.03, atol=1e-6, err_msg=name)
            assert values[-1] == (name == "newcomer")
            if name == "newcomer":
                continue
            column = {"item_item": "item_item 30", "repeat": "repeat 60"}.get(name, name)
            here = problem.columns[column][user.user, : rows.size]
            np.testing.assert_allclose(here, user.sources[name], atol=1e-6, err_msg=name)
    for name in ("item_item", "popular", "item_bias", "newcomer"):
        assert any(user.sources[name].any() for user in users), name
