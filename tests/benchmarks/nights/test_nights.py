"""The bench of nights on the tiny shop: the policies differ where they should, and in nothing else."""

import numpy as np
import polars as pl
import pytest

from benchmarks.nights.hours import measure_hours
from benchmarks.nights.nights import evaluated, measure_new_head, measure_policies, measure_ways, one_night
from recsys.metrics.columns import Lists
from recsys.metrics.list_auc import list_auc
from recsys.metrics.pointwise import auc
from training.predict import day_logits


@pytest.fixture(scope="module")
def policies(shop_chain, config):
    return measure_policies(shop_chain, config, 3, 2)


def test_policies_start_cold_when_they_say(policies):
    cold = {name: policy["cold"] for name, policy in policies.items()}
    assert cold == {
        "cold every night": [True, True],
        "warm": [False, False],
        "warm, cold every 2 nights": [False, True],
    }
    every, now_and_then = (
        policies[name]["by_night"] for name in ("cold every night", "warm, cold every 2 nights")
    )
    assert now_and_then[1] == every[1], "a cold night does not depend on the nights before it"
    assert now_and_then[0] == policies["warm"]["by_night"][0]
    assert policies["warm"]["figures"]["rating RMSE"] == np.mean(
        [night["rating RMSE"] for night in policies["warm"]["by_night"]]
    )


def test_a_head_is_measured_inside_requests(shop_chain, config):
    night = one_night(shop_chain, config, None)
    found = evaluated(shop_chain, night.model, night.plan, config.tasks, config)
    assert [*found] == [
        *(f"{head} {figure}" for head in ("click", "purchase") for figure in ("list_auc", "AUC", "log loss")),
        "rating RMSE",
    ]
    i = night.plan.evaluate["click"]
    logits, rows = day_logits(night.model, shop_chain, i, config)
    shown = shop_chain[i].table("examples", columns=["request_id", "user_id"])
    label, known = rows.labels["click"], ~np.isnan(rows.labels["click"])
    requests = Lists.unplaced(shown.select(pl.struct("request_id", "user_id").rank("dense"))["request_id"])
    expected = list_auc(label[known], logits["click"][known], requests.take(known))
    assert found["click list_auc"] == pytest.approx(expected)
    assert (
        found["click list_auc"]
        != found["click AUC"]
        == pytest.approx(auc(label[known], logits["click"][known]))
    )


def test_a_new_head_is_taught_in_five_ways(shop_chain, config):
    ways = measure_new_head(shop_chain, config, "rating")
    assert len({way["figures"]["rating RMSE"] for way in ways.values()}) == 5
    alone, never = ways["older days first, own parameters"], ways["new days alone"]
    # What they share is the same, and only the new days' steps differ.
    assert alone["figures"]["purchase AUC"] == pytest.approx(never["figures"]["purchase AUC"], abs=0.02)


def test_new_inputs_are_taught_in_four_ways(shop_chain, config):
    ways = measure_ways(shop_chain, config, config.model_copy(update={"attributes": ()}))
    assert [*ways] == [
        "new days alone",
        "older days first, all that is new",
        "older days first, all parameters",
        "cold start",
    ]
    assert len({way["figures"]["click log loss"] for way in ways.values()}) == 4


def test_updates_learn_the_day_while_the_night_alone_does_not(shop_chain, config):
    found = measure_hours(shop_chain, config, 12)
    assert found["updates"] == 1
    assert 0 < found["rows"] < sum(shop_chain.num_impressions(i) for i in (3, 4, 5))
    night, updated = found["versions"].values()
    assert night != updated
