"""tune model: what may be searched, what is measured, and the file that repeats the best run."""

import json
import signal
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from datetime import date

import numpy as np
import optuna
import polars as pl
import pytest

from features.days import Days
from features.labels import make_labels
from recsys.cli import run
from recsys.config import parse_config
from recsys.config.tune import Dimension
from recsys.errors import ConfigError, DataError
from recsys.settings import to_toml
from recsys.shapes import RETRIEVAL
from training.balancing import build_balancer
from training.train import prepare, train
from training.tune.model.bench import ModelBench, improvements
from training.tune.model.console import print_model
from training.tune.model.model_pages import write_model
from training.tune.model.search import best_toml, tune_model
from training.tune.search_pages import bars
from training.tune.space import default_space, space_of, suggest, with_values
from training.tune.study import Budget, importances, open_study

SMALL = {
    "training.learning_rate": {"low": 1e-4, "high": 3e-2, "log": True},
    "model.trunk.name": {"choices": ["mmoe", "shared_bottom"]},
    "model.trunk.hidden": {"choices": [[16, 8], [8]]},
    "task.rating.weight": {"low": 0.1, "high": 1.0},
}


@pytest.fixture(scope="module")
def given(make_config):
    return make_config(tune={"space": SMALL, "rungs": 2, "startup": 3})


@pytest.fixture(scope="module")
def bench(shop_chain, given):
    return ModelBench(shop_chain, given)


@pytest.fixture(scope="module")
def report(bench, tmp_path_factory):
    return tune_model(bench, "mean", tmp_path_factory.mktemp("study") / "s.db", Budget.of(7, None))


def test_learning_from_prepared_days_changes_nothing(shop_chain, config):
    periods = {"click": (0, 2), "purchase": (1, 3), "rating": (0, 1)}
    prepared = prepare(shop_chain, periods, config)
    one, two = (train(shop_chain, periods, config, None, 2, prepared=p) for p in (None, prepared))
    assert all(np.array_equal(v, two.weights()[n]) for n, v in one.weights().items())


def test_measuring_on_the_way_changes_nothing(bench, given):
    config = with_values(given, {"model.dropout": 0.2})
    seen = []
    watched = bench.train(config, 3, lambda rung, found: seen.append((rung, found)))
    assert watched == bench.train(config)
    assert [rung for rung, _ in seen] == [1, 2, 3]
    assert seen[-1][1] == watched
    assert seen[0][1] != seen[1][1]


def test_the_gates_day_is_not_touched(bench, shop_chain):
    """A head is trained, then measured, before the day that a night's gate evaluates it on."""
    plan = bench.plan
    for task, measured in plan.calibrate.items():
        assert plan.train[task][1] < measured < plan.evaluate[task]
        for i, encoded in bench.prepared.encoded.items():
            assert i <= plan.train[task][1] or np.isnan(encoded.labels[task]).all()
    encoded = {p.encoded.day for p in bench._periods.values()} | {
        encoded.day for encoded in bench.prepared.encoded.values()
    }
    assert encoded < {s.day for s in shop_chain}
    assert shop_chain[plan.evaluate["click"]].day not in encoded


def test_every_head_and_retrieval_are_measured(bench, report):
    assert bench.measures == ("click", "purchase", "rating", RETRIEVAL)
    assert all(0 < value < 10 for value in report.baseline.values())
    assert improvements({"click": 0.2}, {"click": 0.4}) == {"click": 0.5}


def test_what_pooled_metrics_would_have_chosen_is_told(report):
    for line in report.trials:
        assert line.pooled_losses.keys() == line.losses.keys()
        same = {name for name, loss in line.losses.items() if line.pooled_losses[name] == loss}
        assert same == (set() if line.state == "pruned" else {"rating", RETRIEVAL})
    gains = {
        line.number: np.mean(list(improvements(line.pooled_losses, report.pooled_baseline).values()))
        for line in report.trials
        if line.state == "complete"
    }
    best = max(gains, key=gains.get)
    assert report.best_by_pooled == (best if gains[best] > 0 else None)


def test_the_best_file_repeats_the_best_run(report, given, shop_chain, tmp_path):
    files = {f.name: f for f in write_model(report, best_toml(given, report), tmp_path)}
    again = parse_config(tomllib.loads(files["best.toml"].read_text()), "best.toml")
    line = report.best_line
    assert line is not None, "three of the seven learning rates beat this one at any seed"
    days = tuple(map(date.fromisoformat, report.validation_days))
    chosen = given.chosen.model_copy(update={"model_days": days})
    assert again == with_values(given, line.settings).model_copy(update={"chosen": chosen})
    assert ModelBench(shop_chain, again).train(again).losses == report.best_losses == line.losses
    assert np.mean(list(improvements(line.losses, report.baseline).values())) == line.values["mean"]
    page = files["report.html"].read_text()
    assert "Importance for mean" in page
    assert page.count("<svg") == 2
    assert json.loads(files["report.json"].read_text())["best"] == report.best


def test_a_loss_of_zero_is_written_and_printed(report, tmp_path, capsys):
    """As where every list of a small validation day is in order."""
    perfect = {
        "baseline": {**report.baseline, "click": 0.0},
        "best_losses": {**report.best_losses, "click": 0.0},
    }
    none = report.model_copy(update=perfect)
    page = write_model(none, "", tmp_path)[0].read_text()
    assert "<tr><td>click</td><td>0.00000</td><td>0.00000</td><td>0.00 %</td></tr>" in page
    print_model(none, [])
    assert "+0.00 %" in capsys.readouterr().out


def test_importance_finds_what_matters(report):
    shares = report.importance["mean"]
    assert set(shares) == set(SMALL)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert "training.learning_rate" in str(bars(shares, "x"))


def test_what_never_varied_has_no_importance():
    study = optuna.create_study(direction="maximize")
    for _ in range(5):
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        study.tell(trial, 0.5)
    assert importances(study, 0) == {}


@pytest.mark.slow  # a search killed in the middle goes on in the test below
def test_a_search_goes_on(bench, report, tmp_path):
    storage = tmp_path / "s.db"
    tune_model(bench, "mean", storage, Budget.of(3, None))
    found = tune_model(bench, "mean", storage, Budget.of(7, None))
    assert _tried(found) == _tried(report)


def _tried(report):
    return [(t.settings, t.values, t.losses) for t in report.trials]


SEARCHER = """
import sys, time
from recsys.cli import main
from training.tune.model.bench import ModelBench
train, calls = ModelBench.train, []
def until_the_sixth_trial(*arguments):
    calls.append(arguments)
    if len(calls) > 6:  # the config as given, and five trials
        time.sleep(3600)
    return train(*arguments)
ModelBench.train = until_the_sixth_trial
main(sys.argv[1:])
"""


def test_a_killed_search_finds_what_an_unbroken_one_finds(
    shop_log, shop_chain, bench, given, report, tmp_path, until
):
    """Killed wherever it is between its second and its sixth trial, which it does not end."""
    (tmp_path / "c.toml").write_text(to_toml(given.model_dump(mode="json", by_alias=True)))
    storage = tmp_path / "s.db"
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "stages").symlink_to(shop_chain[0].path.parents[1])  # the days are built already
    argv = ["--config", f"{tmp_path}/c.toml", "--log", str(shop_log.root), "--storage", str(storage)]
    argv += ["--runs", str(runs)]
    command = [sys.executable, "-c", SEARCHER, "tune", "model", *argv, "--out", f"{tmp_path}/out"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: process.poll() is not None or finished_trials(storage) >= 2)
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert 2 <= finished_trials(storage) < 7
    found = tune_model(bench, "mean", storage, Budget.of(7, None))
    assert _tried(found) == _tried(report)
    with pytest.raises(ConfigError, match="holds another search"):
        tune_model(bench, "click", storage, Budget.of(7, None))
    assert found.best_losses == report.best_losses


def finished_trials(storage):
    """Count the trials of a study whose process runs or was killed in the middle of a write.

    Opened for writing: what a killed process had half written is rolled back by the next reader that may
    write, and a read-only one can read nothing at all.
    """
    try:
        with closing(sqlite3.connect(f"file:{storage}?mode=rw", uri=True)) as connection:
            query = "SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')"
            return connection.execute(query).fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def test_two_searches_cannot_share_a_file(bench, tmp_path):
    storage = tmp_path / "s.db"
    with (
        open_study(storage, ["maximize"], optuna.pruners.NopPruner(), {}),
        pytest.raises(ConfigError, match="used by another search"),
    ):
        tune_model(bench, "mean", storage, Budget.of(1, None))


def test_a_file_that_is_no_study_is_refused(bench, tmp_path):
    (tmp_path / "s.db").write_text("not a database, but long enough to look at" * 40)
    with pytest.raises(DataError, match="is not a study"):
        tune_model(bench, "mean", tmp_path / "s.db", Budget.of(1, None))


def test_a_study_that_cannot_be_kept_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match=r"cannot keep the search .* choose another --storage"),
        open_study(tmp_path / "file" / "s.db", ["maximize"], optuna.pruners.NopPruner(), {}),
    ):
        pass


def test_sections_that_no_trial_reads_may_change(bench, given, make_config, shop_chain, tmp_path):
    tune_model(bench, "mean", tmp_path / "s.db", Budget.of(1, None))
    other = given.model_copy(update={"validation": given.validation.model_copy(update={"min_history": 9})})
    went_on = tune_model(ModelBench(shop_chain, other), "mean", tmp_path / "s.db", Budget.of(1, None))
    assert len(went_on.trials) == 1


def test_no_time_leaves_the_config_as_given(bench, given, tmp_path):
    found = tune_model(bench, "mean", tmp_path / "s.db", Budget.of(5, 0.0))
    assert found.best is None
    assert found.trials == ()
    again = parse_config(tomllib.loads(best_toml(given, found)), "best.toml")
    assert again == given


def test_several_objectives_give_a_point_that_loses_nowhere(bench, tmp_path):
    found = tune_model(bench, "pareto", tmp_path / "s.db", Budget.of(5, None))
    assert set(found.importance) == set(bench.measures)
    assert all(t.state == "complete" for t in found.trials)
    if found.best_line is not None:
        assert all(value >= 0 for value in found.best_line.values.values())


def test_a_head_whose_labels_differ_in_no_list_is_not_measured(shop_chain, make_config, monkeypatch):
    def alike(impressions, *args):
        found, contradictions = make_labels(impressions, *args)
        request = impressions.select(pl.col("request_id").rank("dense").cast(pl.Float64) % 2).to_series()
        known = pl.col("label_click").is_not_null()
        return found.with_columns(pl.when(known).then(request).alias("label_click")), contradictions

    config = make_config()
    monkeypatch.setattr("features.days.make_labels", alike)
    assert ModelBench(Days.of(shop_chain, config), config).heads == ("purchase", "rating")


def test_what_trails_is_stopped(shop_chain, make_config, tmp_path):
    """Two learning rates: the one that is behind at the first rung is not trained to its end again."""
    space = {"training.learning_rate": {"choices": [1e-2, 1e-7]}}
    config = make_config(tune={"space": space, "rungs": 2, "startup": 2})
    bench = ModelBench(shop_chain, config)
    halfway = {}
    for rate in (1e-2, 1e-7):
        bench.train(
            with_values(config, {"training.learning_rate": rate}),
            2,
            lambda rung, found, rate=rate: halfway.setdefault(rate, found.losses["rating"]),
        )
    found = tune_model(bench, "rating", tmp_path / "s.db", Budget.of(9, None))
    stopped = [t for t in found.trials if t.state == "pruned"]
    assert {t.settings["training.learning_rate"] for t in stopped} == {max(halfway, key=halfway.get)}
    reached = improvements({"rating": max(halfway.values())}, found.baseline)["rating"]
    assert all(t.values == {"rating": reached} and not t.losses for t in stopped), "where it stood, no more"


@pytest.mark.parametrize(
    ("key", "dimension", "said"),
    [
        ("features.history_length", {"choices": [5, 10]}, "cannot be searched"),
        ("training.seed", {"choices": [1, 2]}, "cannot be searched"),
        ("task.click.window", {"choices": ["1h"]}, "cannot be searched"),
        ("training.lerning_rate", {"low": 0.1, "high": 0.2}, "unknown key"),
        ("model.trank.name", {"choices": ["ple"]}, "no 'trank'"),
        ("training.learning_rate", {"low": -1.0, "high": 0.1}, "learning_rate"),
        ("model.trunk.name", {"choices": ["mmoe", "moe"]}, "'moe' is unknown; known: cross_stitch"),
        ("training.balancing", {"choices": ["fixed", "magic"]}, "'magic' is unknown; known: fixed"),
    ],
)
def test_a_key_that_cannot_be_searched_is_refused(make_config, key, dimension, said):
    with pytest.raises(ConfigError, match=said):
        space_of(make_config(tune={"space": {key: dimension}}))


def test_methods_that_do_not_read_the_options_are_refused_before_the_first_trial(make_config):
    methods = {"training.balancing": {"choices": ["gradnorm", "fixed"]}}
    alpha = {"training.balancer.alpha": {"low": 0.5, "high": 1.5}}
    for training, space in (
        ({"balancing": "gradnorm", "balancer": {"alpha": 0.5}}, methods),
        ({"balancing": "gradnorm"}, methods | {"training.balancer.alpha": {"low": 0.5, "high": 1.0}}),
    ):
        with pytest.raises(ConfigError, match="'fixed' does not read it"):
            space_of(make_config(training=training, tune={"space": space}))
    assert set(space_of(make_config(training={"balancing": "gradnorm"}, tune={"space": alpha}))) == set(alpha)


def test_the_default_space_keeps_to_methods_that_read_the_options_as_set(make_config):
    def methods(**training):
        found = default_space(make_config(training=training)).get("training.balancing")
        return () if found is None else found.choices

    assert methods() == ("fixed", "uncertainty", "dwa")
    assert methods(balancing="gradnorm", balancer={"alpha": 0.5}) == ()
    config = make_config(training={"balancing": "gradnorm", "balancer": {"alpha": 0.5}})
    study = optuna.create_study()
    for _ in range(20):
        drawn = with_values(config, suggest(study.ask(), space_of(config)))
        build_balancer(drawn.training.balancing, {}, drawn.training.balancer)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"low": 1.0},
        {"low": 2.0, "high": 1.0},
        {"choices": [1], "low": 0.0},
        {"low": 0.0, "high": 1.0, "log": True},
    ],
)
def test_a_dimension_is_a_range_or_choices(make_config, wrong):
    with pytest.raises(ConfigError, match=r"model\.dropout"):
        make_config(tune={"space": {"model.dropout": wrong}})


def test_every_draw_of_the_default_space_is_a_config(config):
    space = default_space(config)
    assert {"task.purchase.weight", "retrieval.weight", "training.balancing"} <= set(space)
    assert "task.click.weight" not in space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        values = suggest(study.ask(), space)
        made = with_values(config, values)
        assert made.training.learning_rate == values["training.learning_rate"]
        assert parse_config(tomllib.loads(to_toml(made.model_dump(mode="json", by_alias=True))), "x") == made


def test_whole_numbers_stay_whole():
    trial = optuna.trial.FixedTrial({"model.trunk.num_experts": 3})
    space = {"model.trunk.num_experts": Dimension(low=1, high=8, whole=True)}
    assert suggest(trial, space) == {"model.trunk.num_experts": 3}


def test_the_command_writes_its_files_and_knows_its_names(shop_log, given, tmp_path, capsys):
    (tmp_path / "c.toml").write_text(to_toml(given.model_dump(mode="json", by_alias=True)))
    argv = [
        "tune",
        "model",
        "--config",
        f"{tmp_path}/c.toml",
        "--log",
        str(shop_log.root),
        "--out",
        f"{tmp_path}/out",
    ]
    assert run([*argv, "--trials", "1", "--json", "-"]) == 0
    assert len(json.loads(capsys.readouterr().out)["trials"]) == 1
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {
        "report.html",
        "report.json",
        "best.toml",
        "study.db",
    }
    assert run([*argv, "--objective", "clik"]) == 2
    assert "known here: mean, pareto, click" in capsys.readouterr().err
    assert run([*argv, "--date", "2020"]) == 2
    (tmp_path / "file").write_text("")
    assert run([*argv[:-1], f"{tmp_path}/file", "--trials", "1"]) == 3
    said = capsys.readouterr().err
    assert "choose another --out" in said
    assert "trials" not in said, "before any work"
