"""Sets that are logs: figures are those of the evaluated day, choices those of the day before it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.quality.nights import baselines as night_baselines
from benchmarks.quality.nights import kuairand
from benchmarks.quality.nights import shop as shop_set
from benchmarks.quality.nights.baselines import NIGHT_BASELINES, PRIOR_ROWS
from benchmarks.quality.nights.night_set import (
    FittedBaseline,
    NightSet,
    evaluated,
    kept,
    night_row,
    over_users,
)
from benchmarks.quality.report import against_baselines, paired
from recsys.cli import run
from recsys.config import load_config
from recsys.metrics.pointwise import auc, rmse
from recsys.simulator.oracle import oracle_report
from recsys.simulator.shop import Shop
from recsys.stages import Stages


@pytest.fixture(scope="module")
def night(shop_log, config, tmp_path_factory):
    return NightSet(shop_log, config, Stages(tmp_path_factory.mktemp("stages")))


@pytest.fixture(scope="module")
def runs(night):
    return night.train(night.config, 2, lambda _line: None, "mmoe")


def test_a_row_holds_the_evaluated_day_and_chooses_on_the_one_before(night, runs):
    tasks = night.config.tasks
    row = night_row("mmoe", tasks, runs, "", ours=True)
    for task in tasks:
        metric, measure = ("auc", auc) if task.is_binary else ("rmse", rmse)
        figure = row.heads[task.name][metric]
        scored = [run[task.name].evaluated for run in runs]
        assert figure.runs == pytest.approx([measure(j.label, j.prediction, j.weight) for j in scored])
        assert figure.value == pytest.approx(np.mean(figure.runs))
        assert figure.low < figure.value < figure.high
        known = [run[task.name].known for run in runs]
        assert figure.validation == pytest.approx(
            np.mean([measure(k.label, k.prediction, k.weight) for k in known])
        )
        day = night.runs.chain[night.runs.plan.evaluate[task.name]].day
        labels = night.runs.labels[day][task.label].drop_nulls()
        assert scored[0].label.size == labels.len()
        assert not np.array_equal(scored[0].prediction, scored[1].prediction), "seeds differ"


def test_the_interval_is_that_of_users_not_of_rows(runs):
    clicks = runs[0]["click"].evaluated
    figure = over_users("auc", [clicks], None)
    one_user = dataclasses.replace(clicks, user=np.arange(clicks.user.size))
    by_row = over_users("auc", [one_user], None)
    assert figure.value == by_row.value
    assert (figure.low, figure.high) != (by_row.low, by_row.high)


def test_a_draw_without_positives_leaves_the_interval_a_number(runs):
    clicks = runs[0]["click"].evaluated
    first = clicks.user == clicks.user[np.argmax(clicks.label)]
    rare = dataclasses.replace(clicks, label=np.where(first, clicks.label, 0).astype(np.float32))
    figure = over_users("auc", [rare], [float("nan")])
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert figure.validation is None


def _between(night, own, other):
    figures = kept(night.config.tasks, {"own": own, "other": other})
    return {(d.head, d.metric): d for d in (paired(figure, "own", "other") for figure in figures)}


def test_a_part_that_changes_nothing_brings_nothing(night, runs):
    calibrated = evaluated(runs)
    raw = [{task: scores.raw for task, scores in run.items()} for run in runs]
    assert all(d.value == d.low == d.high == 0 for d in _between(night, calibrated, calibrated).values())
    calibration = _between(night, calibrated, raw)
    assert calibration["click", "log_loss"].value != 0
    assert calibration["click", "auc"].value == pytest.approx(0, abs=1e-3), "order stays"
    worse = [
        {t: dataclasses.replace(j, prediction=np.full_like(j.prediction, 0.5)) for t, j in run.items()}
        for run in calibrated
    ]
    clicks = [run["click"] for run in calibrated]
    value = np.mean([auc(c.label, c.prediction, c.weight) for c in clicks]) - 0.5
    gained = _between(night, calibrated, worse)["click", "auc"]
    assert gained.value == pytest.approx(value)
    assert (gained.row, gained.against) == ("own", "other")


def test_other_features_are_built_for_a_variant_that_has_them(night):
    features = night.config.features.model_copy(update={"history_length": 0, "live_counters": False})
    variant = night.config.model_copy(update={"features": features})
    found = night.train(variant, 1, lambda _line: None, "without")
    full = night.train(night.config, 1, lambda _line: None, "full")
    assert np.array_equal(found[0]["click"].evaluated.label, full[0]["click"].evaluated.label)
    assert not np.array_equal(found[0]["click"].evaluated.prediction, full[0]["click"].evaluated.prediction)


def test_an_items_rate_is_held_back_towards_the_mean(night):
    click = night.config.tasks[0]
    scores, _ = night.fit("item_rate", NIGHT_BASELINES["item_rate"], lambda _line: None)
    first, last = night.runs.plan.train[click.name]
    rows = pl.concat(
        [
            s.frame.select("item_id").with_columns(label=pl.Series(s.labels[click.name]).fill_nan(None))
            for i in range(first, last + 1)
            for s in night.runs.prepared.encoded[i]
        ]
    ).drop_nulls()
    mean = rows["label"].mean()
    item = rows["item_id"].mode().sort()[0]
    own = rows.filter(pl.col("item_id") == item)["label"]
    expected = (own.sum() + PRIOR_ROWS * mean) / (own.len() + PRIOR_ROWS)
    assert np.isclose(scores["click"].raw.prediction, expected).any()


@pytest.mark.parametrize("name", ["lightgbm", "linear"])
def test_simple_systems_are_scored_on_the_models_rows(night, runs, name, monkeypatch):
    monkeypatch.setattr(night_baselines, "TRIALS", 1)
    scores, note = night.fit(name, NIGHT_BASELINES[name], lambda _line: None)
    for task in night.config.tasks:
        assert np.array_equal(scores[task.name].evaluated.label, runs[0][task.name].evaluated.label)
        assert f"{task.name}: " in note
    evaluated = scores["click"].evaluated
    assert auc(evaluated.label, evaluated.prediction) > 0.55


def test_simple_systems_are_calibrated_as_ours_are(night):
    def doubled(task, _night, _known):
        def predict(encoded, rows):
            label = encoded.labels[task.name][rows]
            return 0.2 + 0.6 * label if task.is_binary else 10 * label

        return FittedBaseline(predict=predict)

    scores, _ = night.fit("doubled", doubled, lambda _line: None)
    rating = next(task.name for task in night.config.tasks if not task.is_binary)
    assert np.abs(scores[rating].raw.prediction - scores[rating].raw.label).min() > 1
    assert np.abs(scores[rating].evaluated.prediction - scores[rating].evaluated.label).max() < 0.2
    assert scores["click"].evaluated.prediction.max() > 0.9


def test_one_fit_of_a_simple_system_stands_beside_every_seed(night, runs):
    rate, _ = night.fit("item_rate", NIGHT_BASELINES["item_rate"], lambda _line: None)
    tasks = night.config.tasks
    table = [night_row("mmoe", tasks, runs, "", ours=True), night_row("rate", tasks, [rate], "", ours=False)]
    found = against_baselines(table, kept(tasks, {"mmoe": evaluated(runs), "rate": evaluated([rate])}))
    click = next(d for d in found if (d.head, d.metric) == ("click", "auc"))
    assert (click.row, click.against) == ("mmoe", "rate")
    by_name = {row.name: row.heads["click"]["auc"].value for row in table}
    assert click.value == pytest.approx(by_name["mmoe"] - by_name["rate"])


def test_the_oracles_row_is_the_oracle_report(night, shop_log):
    shop = Shop.from_log(shop_log.root)
    oracles = shop_set._Oracles(shop, shop_log)
    scores, _ = night.fit(shop_set.TRUTH, oracles.truth, lambda _line: None)
    row = night_row(shop_set.TRUTH, night.config.tasks, [scores], "", ours=False)
    informed, _ = night.fit(shop_set.INFORMED, oracles.informed, lambda _line: None)
    day = night.runs.chain[night.runs.plan.evaluate["click"]].day
    labels = night.runs.labels[day]
    rows = shop_log.read("impressions", day).join(
        labels.select("impression_id", click="label_click", purchase="label_purchase", rating="label_rating"),
        on="impression_id",
    )
    history = shop_set.labelled(shop_log, shop.dials.first_day, day - shop_set.timedelta(days=1))
    expected = oracle_report(shop, history, rows)
    assert row.heads["click"]["auc"].value == pytest.approx(expected.click_best_auc)
    found = night_row(shop_set.INFORMED, night.config.tasks, [informed], "", ours=False)
    assert found.heads["click"]["auc"].value == pytest.approx(expected.click_informed_auc)


def test_the_shop_from_the_command_line(shop_log, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shop_set, "default_config", lambda: config)
    target = tmp_path / "shop.json"
    rows = "mmoe,item_rate,informed_oracle,truth"
    arguments = ["bench", "quality", "--set", "shop", "--data", str(shop_log.root), "--seeds", "1"]
    assert run([*arguments, "--rows", rows, "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    assert [row["name"] for row in tree["rows"]] == rows.split(",")
    auc_of = {row["name"]: row["heads"]["click"]["auc"]["value"] for row in tree["rows"]}
    assert tree["best"]["row"] == "mmoe"
    assert tree["facts"]["click_share_of_way"] == pytest.approx(
        (auc_of["mmoe"] - 0.5) / (auc_of["informed_oracle"] - 0.5)
    )
    assert "…" not in capsys.readouterr().out, "no figure is cut"


def test_a_folder_that_is_no_simulated_log_says_so(tmp_path, capsys):
    assert run(["bench", "quality", "--set", "shop", "--data", str(tmp_path)]) != 0
    assert "shop.json" in capsys.readouterr().err


def test_a_config_without_a_part_lacks_it_and_nothing_else(night):
    configs, full = kuairand._configs(night), night.config
    without = {n.removeprefix(kuairand.WITHOUT): c for n, c in configs.items() if n.startswith("without_")}
    assert {*without, kuairand.CALIBRATION} == set(kuairand.PARTS)
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
    example = Path(__file__).parents[3] / "examples" / "kuairand.toml"
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


def test_what_a_part_brings_needs_two_seeds(tmp_path, capsys):
    arguments = ["bench", "quality", "--set", "kuairand", "--data", str(tmp_path), "--seeds", "1"]
    assert run([*arguments, "--rows", "mmoe,without_history"]) != 0
    assert "--seeds 2" in capsys.readouterr().err
