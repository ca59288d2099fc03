"""Sets that are logs: figures are those of the evaluated day, choices those of the day before it."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.quality.sets import kuairand, night_baselines
from benchmarks.quality.sets import simulated_shop as shop_set
from benchmarks.quality.sets.night import (
    FittedBaseline,
    Night,
)
from benchmarks.quality.sets.night_baselines import NIGHT_BASELINES, PRIOR_ROWS
from recsys.cli import run
from recsys.config import load_config
from recsys.metrics.list_auc import list_auc
from recsys.metrics.pointwise import auc, rmse
from recsys.simulator.oracle import oracle_report
from recsys.simulator.shop import Shop
from recsys.stages import Stages
from training.tune.model.bench import ModelBench


@pytest.fixture(scope="module")
def night(shop_log, config, tmp_path_factory):
    return Night(shop_log, config, Stages(tmp_path_factory.mktemp("stages")))


@pytest.fixture(scope="module")
def runs(night):
    return [night.train(night.config, seed) for seed in range(2)]


@pytest.fixture(scope="module")
def alone(lone_log, config, tmp_path_factory):
    """The same night on a log that keeps no requests."""
    return Night(lone_log, config, Stages(tmp_path_factory.mktemp("alone")))


def value(night, run, metric, head):
    """Measure one head of a run on the evaluated day."""
    measure = next(m for m in night.test_measures() if m.key == (head, metric))
    return measure.value(run.test)


def test_a_run_holds_the_evaluated_day_and_chooses_on_the_one_before(night, runs):
    known = {m.head: m for m in night.validation_measures()}
    for task in night.config.tasks:
        metric, measure = ("auc", auc) if task.kind.probability else ("rmse", rmse)
        of = next(m for m in night.test_measures() if m.key == (task.name, metric))
        primary = next(m for m in night.test_measures() if m.key == (task.name, task.kind.metric))
        assert known[task.name].metric == task.kind.metric
        if task.kind.probability:
            ordered = runs[0].test[f"list {task.name}"]
            expected = list_auc(of.label, ordered, of.lists, of.weight)
            assert primary.value(runs[0].test) == pytest.approx(expected)
        prediction = runs[0].test[task.name]
        assert of.value(runs[0].test) == pytest.approx(measure(of.label, prediction, of.weight))
        labels = night.runs.days.labels(night.runs.plan.evaluate[task.name])[task.label].drop_nulls()
        assert of.label.size == labels.len() == prediction.size
        labels = night.runs.days.labels(night.runs.plan.calibrate[task.name])[task.label].drop_nulls()
        assert known[task.name].label.size == labels.len() == runs[0].validation[task.name].size
        assert not np.array_equal(prediction, runs[1].test[task.name]), "seeds differ"


def test_without_requests_simple_systems_have_the_state_held_inside_lists(alone):
    def live_state(task, night, known):
        del task, night, known
        return FittedBaseline(
            predict=lambda rows: rows.encoded.contexts.numbers[rows.rows].sum(axis=1), calibrate=False
        )

    found = alone.fit(live_state)
    assert alone.runs.list_group == "user_period_context"
    for rows, outputs in (
        (alone.labelled(alone.config.tasks[0], alone.runs.plan.evaluate), found.test),
        (alone.labelled(alone.config.tasks[0], alone.runs.plan.calibrate), found.validation),
    ):
        both = pl.DataFrame({"list": rows.lists.group, **{n: outputs[n] for n in ("click", "list click")}})
        states = both.filter(pl.col("list") >= 0).group_by("list").n_unique()
        assert states["list click"].max() == 1 < states["click"].max()


def test_without_requests_models_and_searches_have_the_state_held_inside_lists(alone):
    trained = alone.runs.train(alone.config, alone.config.tasks, 0, prepared=alone.runs.prepared)
    known = alone.runs.score(trained, alone.config, alone.config.tasks)["click"].known
    assert not np.array_equal(known.prediction, known.list_prediction)
    (measure,) = [m for m in alone.validation_measures() if m.head == "click"]
    expected = list_auc(measure.label, known.list_prediction, measure.lists, measure.weight)
    assert measure.value({"list click": known.list_prediction}) == pytest.approx(expected)
    measured = ModelBench(alone.runs.days, alone.config).measure(trained.ranker, trained.tables)
    assert measured.losses["click"] == pytest.approx(1 - expected)
    live = auc(measure.label, known.prediction, measure.weight)
    assert measured.pooled["click"] == pytest.approx(1 - live), "of all rows, by their live state"


def test_calibration_keeps_the_order(night, runs):
    raw = replace(runs[0], test={"click": runs[0].test["raw click"]})
    assert value(night, runs[0], "log_loss", "click") != value(night, raw, "log_loss", "click")
    assert value(night, runs[0], "auc", "click") == pytest.approx(value(night, raw, "auc", "click"), abs=1e-3)


def test_other_features_are_built_for_a_variant_that_has_them(night):
    features = night.config.features.model_copy(update={"history_length": 0, "live_counters": False})
    variant = night.config.model_copy(update={"features": features})
    found, full = night.train(variant, 0), night.train(night.config, 0)
    assert found.test["click"].size == full.test["click"].size
    assert not np.array_equal(found.test["click"], full.test["click"])


def test_an_items_rate_is_held_back_towards_the_mean(night):
    click = night.config.tasks[0]
    fitted = NIGHT_BASELINES["item_rate"](click, night, None)
    predicted = fitted.predict(night.labelled(click, night.runs.plan.evaluate))
    first, last = night.runs.plan.train[click.name]
    rows = pl.concat(
        [
            s.frame.select("item_id").with_columns(label=pl.Series(s.labels[click.name]).fill_nan(None))
            for s in (night.runs.prepared.encoded[i] for i in range(first, last + 1))
        ]
    ).drop_nulls()
    mean = rows["label"].mean()
    item = rows["item_id"].mode().sort()[0]
    own = rows.filter(pl.col("item_id") == item)["label"]
    expected = (own.sum() + PRIOR_ROWS * mean) / (own.len() + PRIOR_ROWS)
    assert np.isclose(predicted, expected).any()


@pytest.mark.parametrize("name", ["lightgbm", "linear"])
def test_simple_systems_are_scored_on_the_models_rows(night, runs, name, monkeypatch):
    monkeypatch.setattr(night_baselines, "TRIALS", 1)
    found = night.fit(NIGHT_BASELINES[name])
    for task in night.config.tasks:
        assert found.test[task.name].shape == runs[0].test[task.name].shape
        assert f"{task.name}: " in found.note
    assert value(night, found, "auc", "click") > 0.55


def test_simple_systems_are_calibrated_as_ours_are(night):
    def doubled(task, _night, _known):
        return FittedBaseline(
            predict=lambda rows: 0.2 + 0.6 * rows.label if task.kind.probability else 10 * rows.label
        )

    found = night.fit(doubled)
    rating = next(task for task in night.config.tasks if not task.kind.probability)
    label = night.labelled(rating, night.runs.plan.evaluate).label
    assert np.abs(found.validation[rating.name]).min() >= 10, "what a choice looks at is not calibrated"
    assert np.abs(found.test[rating.name] - label).max() < 0.2
    assert found.test["click"].max() > 0.9


def test_the_oracles_row_is_the_oracle_report(night, shop_log):
    shop = Shop.from_log(shop_log.root)
    oracles = shop_set.Oracles(shop, shop_log)
    place = night.runs.plan.evaluate["click"]
    day, labels = night.runs.days[place].day, night.runs.days.labels(place)
    rows = shop_log.read("impressions", day).join(
        labels.select("impression_id", click="label_click", purchase="label_purchase", rating="label_rating"),
        on="impression_id",
    )
    history = shop_set.read_labelled(shop_log, shop.dials.first_day, day - shop_set.timedelta(days=1))
    expected = oracle_report(shop, history, rows)
    for fit, found in (
        (oracles.truth, expected.click_best_list_auc),
        (partial(oracles.informed, knows_appeal=True), expected.click_informed_list_auc),
    ):
        assert value(night, night.fit(fit), "list_auc", "click") == pytest.approx(found)


def test_chances_of_a_row_are_those_its_label_was_drawn_by(night, shop_log):
    oracles = shop_set.Oracles(Shop.from_log(shop_log.root), shop_log)
    truth = night.fit(oracles.truth).test
    by = {m.key: m for measure in night.test_measures() for m in oracles.by_chances(measure, night)}
    assert set(by) == {("click", "true_list_auc"), ("purchase", "true_list_auc")}
    for (head, _), measure in by.items():
        assert np.array_equal(measure.label, truth[head]), "the chance at the position that was shown"
        of_labels = next(m for m in night.test_measures() if m.key == (head, "list_auc"))
        drawn = np.random.default_rng(0).random((200, measure.label.size)) < measure.label
        lists = of_labels.lists
        mean = np.mean([list_auc(label, truth[head], lists) for label in drawn])
        assert measure.value(truth | {f"list {head}": truth[head]}) == pytest.approx(mean, abs=0.01)


def test_the_shop_from_the_command_line(shop_log, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shop_set, "default_config", lambda: config)
    target = tmp_path / "shop.json"
    rows = "mmoe,item_rate,informed_oracle,appeal_oracle,truth"
    arguments = ["bench", "quality", "--set", "shop", "--data", str(shop_log.root), "--seeds", "1"]
    assert run([*arguments, "--rows", rows, "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    assert [row["name"] for row in tree["rows"]] == rows.split(",")
    auc_of = {row["name"]: row["heads"]["click"]["list_auc"]["value"] for row in tree["rows"]}
    assert tree["best"]["row"] == "mmoe"
    gain = auc_of["mmoe"] - 0.5
    assert tree["facts"]["click_share_of_oracle"] == pytest.approx(gain / (auc_of["appeal_oracle"] - 0.5))
    assert tree["facts"]["click_share_of_truth"] == pytest.approx(gain / (auc_of["truth"] - 0.5))
    assert auc_of["truth"] > auc_of["appeal_oracle"] > auc_of["informed_oracle"]
    of_chances = {row: heads["purchase"]["true_list_auc"] for row, heads in tree["by_row"].items()}
    assert of_chances["truth"] == max(of_chances.values())
    assert of_chances["truth"] != tree["by_row"]["truth"]["purchase"]["list_auc"], "labels are one draw"
    compared = {
        (d["row"], d["against"], d["head"]) for d in tree["differences"] if d["metric"] == "true_list_auc"
    }
    assert ("mmoe", "informed_oracle", "purchase") in compared
    assert "…" not in capsys.readouterr().out, "no figure is cut"


def test_a_folder_that_is_no_simulated_log_says_so(tmp_path, capsys):
    assert run(["bench", "quality", "--set", "shop", "--data", str(tmp_path)]) != 0
    assert "shop.json" in capsys.readouterr().err


def test_rows_that_learn_the_order_inside_lists_change_that_alone(night, runs):
    orders = night.list_orders()
    assert list(orders) == ["list_weight_0.1", "list_weight_0.3", "list_weight_1"]
    for weight, row in zip((0.1, 0.3, 1.0), orders.values(), strict=True):
        (config,) = row.train.args
        assert [task.list_weight for task in config.tasks] == [weight, weight, 0.0]
        back = tuple(task.model_copy(update={"list_weight": 0.0}) for task in config.tasks)
        assert config.model_copy(update={"tasks": back}) == night.config
        assert not row.shown
    learned = orders["list_weight_1"].train(0)
    for name, prediction in learned.test.items():
        assert prediction.shape == runs[0].test[name].shape
        assert np.abs(prediction - runs[0].test[name]).max() > 1e-4, name


def test_a_config_without_a_part_lacks_it_and_nothing_else(night):
    configs, full = kuairand._configs(night), night.config
    without = {n.removeprefix(kuairand.WITHOUT): c for n, c in configs.items() if n.startswith("without_")}
    assert len(without) == 10
    assert without["history"].features == full.features.model_copy(update={"history_length": 0})
    assert not any(a.entity == "item" for a in without["item_content"].attributes)
    assert without["item_content"].features.text_dim == 0
    assert without["mixture"].model.trunk.name == "shared_bottom"
    assert without["sharing"].model.trunk.name == "single_task"
    assert without["retrieval_loss"].retrieval.weight == 0
    assert not any(t.parent for t in without["entire_space"].tasks)
    assert {t.weight for t in without["tuned_weights"].tasks} == {1.0}
    assert without["fixed_weights"].training.balancing == "uncertainty"
    for config in without.values():
        same = [n for n in type(full).model_fields if getattr(config, n) == getattr(full, n)]
        assert len(same) >= len(type(full).model_fields) - 2, "one part, at most attributes beside features"


def test_the_example_for_users_is_the_config_that_is_measured():
    example = Path(__file__).parents[4] / "examples" / "kuairand.toml"
    assert load_config(example) == load_config(kuairand.CONFIG)


@pytest.mark.slow
def test_kuairand_from_the_command_line(data, tmp_path):
    target = tmp_path / "kuairand.json"
    arguments = ["bench", "quality", "--set", "kuairand", "--data", str(data / "kuairand_pure")]
    rows = "mmoe,item_rate,without_calibration"
    assert run([*arguments, "--seeds", "2", "--rows", rows, "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    assert set(tree["best"]) == {"row", "click", "purchase", "rating", "like"}
    model, rate = (row["heads"] for row in tree["rows"])
    for head in ("click", "purchase", "like"):
        assert model[head]["auc"]["value"] > rate[head]["auc"]["value"] + 0.05
    assert model["rating"]["rmse"]["value"] < rate["rating"]["rmse"]["value"] - 0.05
    brought = {(d["head"], d["metric"]): d for d in tree["differences"]}
    assert brought["click", "log_loss"]["high"] < 0, "calibration lowers the log loss"
