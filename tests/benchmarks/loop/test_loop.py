"""The loop's day on the tiny shop: a bundle answers the day to come; the figures are of its lists."""

import json
from dataclasses import replace
from datetime import timedelta
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from benchmarks.loop.loop import ServedDay, _is_new, _served, above
from benchmarks.loop.loop_pages import nights_grid, value_curve
from benchmarks.loop.serve_day import DayServer
from recsys.bundle import load_bundle
from recsys.policy import PolicyParameters
from recsys.simulator.log_writer import simulate_day
from recsys.simulator.shop import Shop
from training.predict import BundlePredictor


@pytest.fixture(scope="module")
def shop(shop_log):
    return Shop.from_log(shop_log.root)


@pytest.fixture(scope="module")
def day(shop):
    return shop.dials.last_day + timedelta(days=1)


@pytest.fixture(scope="module")
def server(shop, day, shop_chain, bundle_folder, config):
    predictor = BundlePredictor(load_bundle(bundle_folder))
    previous, policy = shop_chain[-1], config.policy
    return DayServer(shop=shop, day=day, previous=previous, predictor=predictor, policy=policy, seed=7)


@pytest.fixture(scope="module")
def tables(shop, day, server):
    return simulate_day(shop, day, server)


def test_every_request_gets_a_page_of_available_items(shop, day, tables, server):
    own = simulate_day(shop, day)
    assert tables.requests["request_id"].equals(own.requests["request_id"])
    assert tables.impressions.height == tables.requests.height * shop.dials.page_size
    assert tables.impressions.select("request_id", "item_id").is_unique().all()
    shown = shop.item_numbers(tables.impressions["item_id"])
    assert np.isin(shown, shop.items.available(shop.dials.day_number(day))).all()
    assert tables.requests["bundle_version"].unique().to_list() == [server.predictor.bundle.version]


def test_purchased_items_do_not_come_again(shop_chain, tables):
    seen = shop_chain[-1].table("seen").filter(pl.col("kind") == "purchase").select("user_id", "item_id")
    assert seen.height
    assert tables.impressions.join(seen, on=["user_id", "item_id"], how="semi").is_empty()


def test_greedy_pages_are_sorted_by_the_score_and_few_explore(tables, server):
    explored = tables.impressions.group_by("request_id").agg(pl.col("explored").any())["explored"]
    assert 0 < explored.sum() < 0.3 * explored.len()
    greedy = tables.impressions.filter(~pl.col("explored"))
    assert (greedy["propensity"] >= 0.9).all()
    assert server.expected_click.shape == (tables.requests.height, 10)


def test_lists_are_drawn_by_the_policy_but_its_uniform_item(shop, day, server, config):
    policy = config.policy.model_copy(update={"max_per_category": 3, "uniform_share": 1.0})
    requests = simulate_day(shop, day, replace(server, policy=policy)).requests
    drawn_by = PolicyParameters.of_log(policy.name, json.loads(requests["policy_parameters"][0]))
    assert drawn_by == replace(PolicyParameters.of(policy), uniform_share=0.0)
    assert drawn_by.max_per_category == 3


def test_a_user_who_asks_twice_is_asked_for_twice(tables):
    assert tables.requests["user_id"].is_duplicated().any()


def test_the_days_figures_are_those_of_its_lists(shop, config, day, tables, server):
    of = _served(shop, config, day, tables, float(server.expected_click.mean()))
    weights = {task.name: task.fusion_weight for task in config.tasks}
    first = tables.truth[:10]
    seen = np.arange(1, 11) ** -shop.dials.position_decay
    expected = (
        weights["click"] * first["p_click"].sum()
        + weights["purchase"] * first["p_purchase"].sum()
        + weights["rating"] * (seen * first["expected_rating"].to_numpy()).sum()
    )
    assert of.value[0] == pytest.approx(expected)
    assert of.observed_click == pytest.approx(of.true_click, rel=0.5)
    clicks = (tables.feedback["kind"] == "click").sum()
    assert of.observed_click == clicks / tables.impressions.height
    assert of.new_shown == 0.0, "a day's own new items are not listed yet"
    arrived = shop.items.arrival_day[shop.items.available(shop.dials.day_number(day))]
    assert of.new_offered == pytest.approx((arrived == arrived.max()).mean())


def test_new_items_are_those_that_came_after_the_log(shop):
    last = shop.dials.day_number(shop.dials.last_day)
    first_of = [np.flatnonzero(shop.items.arrival_day == day)[0] for day in (0, last, last + 1)]
    assert _is_new(shop, np.array(first_of)).tolist() == [False, False, True]


def test_nights_are_compared_request_by_request(day):
    base = np.random.default_rng(0).random(200)
    one, other = (
        ServedDay(
            day=day,
            value=base + shift,
            expected_click=0.1,
            observed_click=0.1,
            true_click=0.1,
            new_shown=0.0,
            new_offered=0.0,
        )
        for shift in (0.05, 0.0)
    )
    found = above(one, other)
    assert found["mean"] == pytest.approx(0.05 / base.mean())
    assert found["low"] == pytest.approx(found["high"])


def test_page_and_curve_hold_every_night():
    night = {"day": "2026-01-31", "true_value": 1.2, "expected_click": 0.2, "observed_click": 0.1}
    night |= {"expected_over_observed": 2.0, "new_shown": 0.05, "new_offered": 0.2}
    above = {"mean": 0.01, "low": -0.01, "high": 0.03}
    nights = [{**night, "true_value": 1.2 + n / 10, "verdict": "PROMOTE"} for n in range(3)]
    tree = {"seed": 1, "nights": [{**n, "above_never_retrained": above} for n in nights]}
    tree["never_retrained"] = [night] * 3
    titles, *lines = nights_grid(tree)
    assert [len(line) for line in lines] == [len(titles)] * 3
    assert lines[0][5] == "2.00"
    assert lines[0][-2:] == ["0.050", "0.200"]
    drawn = ElementTree.fromstring(value_curve(tree))
    curves = [of.get("d") for of in drawn.iter() if of.tag.endswith("path")]
    assert [curve.count("L") for curve in curves] == [2, 2]
    heights = [float(point.split(",")[1]) for point in curves[0][1:].split(" L")]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("last", [1.0, 1.001, 1.02, 1.3])
def test_the_names_of_curves_that_end_close_to_each_other_can_be_read(last):
    nights = [{"true_value": value} for value in (1.5, last)]
    never = [{"true_value": value} for value in (1.5, 1.0)]
    drawn = ElementTree.fromstring(value_curve({"seed": 1, "nights": nights, "never_retrained": never}))
    heights = {of.text: float(of.get("y")) for of in drawn.iter() if of.tag.endswith("text")}
    assert heights["never retrained"] - heights["learns every night"] >= 14.9, (
        "12 px letters, the higher first"
    )
