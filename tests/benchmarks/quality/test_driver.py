"""The driver: what a set declares becomes figures, a choice, and paired differences."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality import SETS
from benchmarks.quality.driver import figure, measure_set, over_repeats, paired, wanted_rows
from benchmarks.quality.quality_set import (
    CHOSEN,
    Measure,
    QualitySet,
    Row,
    Run,
    baseline,
    lower_is_better,
)
from benchmarks.quality.run_set import set_of
from recsys.cli import run
from recsys.errors import ConfigError
from recsys.metrics.pointwise import auc, rmse

USERS, EACH = 40, 10
USER = np.repeat(np.arange(USERS), EACH)


def stars(seed=0):
    return np.random.default_rng(seed).normal(3, 1, USERS * EACH)


def measure(label, **changed):
    return Measure(head="a", metric="rmse", output="a", pooled="rmse", label=label, user=USER, **changed)


def toy(rows, *, questions=(), **changed):
    """Give a set whose rows are off by so much on validation and on the test."""

    def train(off):
        known, tested = off
        return lambda seed: Run(
            validation={"a": stars(1) + known}, test={"a": stars() + tested + 0.01 * seed}, note="told"
        )

    made = {name: replace(row, train=train(row.train)) for name, row in rows.items()}
    return QualitySet(
        name="toy",
        protocol="p",
        interval="i",
        budget="b",
        rows=made,
        validation=[measure(stars(1))],
        test=[measure(stars())],
        questions=questions,
        **changed,
    )


def silent(_line):
    pass


def test_a_peers_rows_are_trained_beside_all_others_or_those_asked_for():
    rows = {
        "ours": Row((0.1, 0.6)),
        "other": Row((0.2, 0.6)),
        "theirs": Row((0.3, 0.2), ours=False, on_request=True),
    }
    of = toy(rows, peers={"peer": ("theirs",)})
    for asked, peers, found in (
        ([], (), ["ours", "other"]),
        ([], ("peer",), ["ours", "other", "theirs"]),
        (["other"], ("peer",), ["other", "theirs"]),
    ):
        report = measure_set(of, 2, asked, silent, peers)
        assert [row.name for row in report.rows] == found
    with pytest.raises(ConfigError, match="--peer 'recbole' is not known; this set has: peer"):
        measure_set(of, 2, [], silent, ["recbole"])
    with pytest.raises(ConfigError, match="this set has: none"):
        measure_set(toy(rows), 2, [], silent, ["peer"])


def test_validation_chooses_and_the_verdicts_are_of_the_test():
    rows = {
        "best on validation": Row((0.1, 0.6)),
        "best on the test": Row((0.3, 0.2)),
        "alone": Row((0.0, 0.5), ours=False),
        "mean": Row((0.0, 0.9), ours=False, seeded=False),
    }
    asked = (("best on the test", "best on validation"), (CHOSEN, "alone"))
    said = []
    tree = measure_set(toy(rows, questions=asked, facts={"users": 40}), 2, [], said.append).as_json()
    assert tree["best"] == {"row": "best on validation", "a": {"rmse": pytest.approx(0.605)}}
    found = {(d["row"], d["against"]): (d["value"], d["verdict"]) for d in tree["differences"]}
    assert found == {
        ("best on the test", "best on validation"): (pytest.approx(-0.4), "better"),
        ("best on validation", "alone"): (pytest.approx(0.1), "worse"),
        ("best on validation", "mean"): (pytest.approx(-0.295), "better"),
    }
    assert {row["name"]: row["seeds"] for row in tree["rows"]} == dict(zip(rows, (2, 2, 2, 1), strict=True))
    assert tree["rows"][0]["note"] == "told"
    assert said[0] == "best on validation, seed 0: told, validation a rmse 0.1000"
    assert len(said) == 7
    assert tree["facts"] == {"users": 40}


def test_a_row_that_is_not_shown_answers_a_question_and_brings_its_other_side():
    rows = {"full": Row((0.1, 0.1)), "without": Row((0.2, 0.3), shown=False), "other": Row((0.1, 0.1))}
    tree = measure_set(toy(rows, questions=(("full", "without"),)), 2, ["without"], silent).as_json()
    assert tree["rows"] == []
    assert tree["best"] == {}
    (found,) = tree["differences"]
    assert (found["row"], found["against"], found["verdict"]) == ("full", "without", "better")


def test_a_set_concludes_from_its_own_table():
    def conclude(chosen, values):
        return {f"{chosen}_over_mean": values[chosen]["a", "rmse"] / values["mean"]["a", "rmse"]}

    rows = {"ours": Row((0.1, 0.2)), "mean": Row((0.0, 0.4), ours=False)}
    report = measure_set(toy(rows, conclude=conclude, facts={"n": 1}), 1, [], silent)
    assert report.facts == {"n": 1, "ours_over_mean": pytest.approx(0.5)}
    assert measure_set(toy(rows, conclude=conclude), 1, ["mean"], silent).facts == {}


def test_an_output_that_a_row_lacks_is_no_figure():
    label = stars()
    both = Run(validation={}, test={"a": label, "list": np.ones(5)})
    lists = Measure(head="list", metric="ndcg@10", output="list")
    of = replace(toy({}), rows={"ours": baseline(lambda: both)}, validation=[measure(label)], test=[lists])
    report = measure_set(of, 1, [], silent)
    assert set(report.rows[0].heads) == {"list"}
    assert report.rows[0].validation == {}
    assert report.differences == ()


def test_rows_give_a_bootstrap_interval_around_the_mean_of_runs():
    rng = np.random.default_rng(0)
    label = (rng.random(2000) < 0.3).astype(float)
    runs = [{"a": label + rng.normal(0, 1, 2000)} for _ in range(2)]
    of = Measure(head="a", metric="auc", output="a", pooled="auc", label=label, user=np.arange(2000))
    found = figure(of, runs, 0.6)
    assert found.value == pytest.approx(np.mean([auc(label, run["a"]) for run in runs]))
    assert found.low < found.value < found.high
    assert 0.01 < found.high - found.low < 0.06
    assert found.validation == 0.6


def test_rows_of_a_user_are_drawn_together():
    """Of rows of one user, each draw is the same rows: there is no interval to speak of."""
    label, prediction = stars(), stars(1)
    wide = figure(measure(label), [{"a": prediction}])
    none = figure(replace(measure(label), user=np.zeros_like(USER)), [{"a": prediction}])
    by_row = figure(replace(measure(label), user=np.arange(USER.size)), [{"a": prediction}])
    assert wide.low < wide.value < wide.high
    assert none.low == none.high == pytest.approx(none.value)
    assert (wide.low, wide.high) != (by_row.low, by_row.high)


def test_some_rows_are_measured_alone_and_weights_count():
    label, prediction, weight = stars(), stars(1), np.arange(USERS * EACH) + 1.0
    last = USER >= 30
    found = measure(label).among(last, "_warm")
    assert found.key == ("a", "rmse_warm")
    assert found.value({"a": prediction}) == pytest.approx(rmse(label[last], prediction[last]))
    weighted = measure(label, weight=weight).value({"a": prediction})
    assert weighted == pytest.approx(rmse(label, prediction, weight))
    assert not found.higher_is_better


def test_draws_of_one_class_are_left_out_of_the_interval():
    """One positive among four: a third of the draws have none."""
    of = Measure(
        head="a", metric="auc", output="a", pooled="auc", label=np.array([1.0, 0, 0, 0]), user=np.arange(4)
    )
    found = figure(of, [{"a": np.array([0.5, 0.1, 0.2, 0.9])}], math.nan)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.validation is None


def test_a_metric_without_an_interval_is_a_figure_that_rows_are_not_compared_by():
    label = np.array([1.0, 0, 0, 0])
    of = Measure(head="a", metric="ece", output="a", pooled="ece", label=label, user=np.arange(4))
    own, other = ([Run(validation={}, test={"a": np.full(4, p)})] for p in (0.45, 0.25))
    found = figure(of, [run.test for run in (*own, *other)])
    assert found.value == pytest.approx(0.1)
    assert found.runs == pytest.approx((0.2, 0.0))
    assert found.low is found.high is None
    rows = {"ours": baseline(lambda: own[0]), "mean": baseline(lambda: other[0])}
    shown = replace(toy({}), rows=rows, validation=[], test=[of], questions=(("ours", "mean"),))
    assert measure_set(shown, 1, [], silent).differences == ()


def test_what_is_not_defined_is_nan_and_has_no_interval():
    one_class = Measure(
        head="a", metric="auc", output="a", pooled="auc", label=np.zeros(3), user=np.arange(3)
    )
    nothing = replace(measure(np.zeros(0)), user=np.zeros(0, int))
    for of, prediction in ((one_class, np.arange(3.0)), (nothing, np.zeros(0))):
        found = figure(of, [{"a": prediction}])
        assert math.isnan(found.value)
        assert found.low is None


def test_repeats_give_students_interval():
    found = over_repeats([1.0, 2.0, 3.0])
    assert found.value == 2
    assert found.high - found.value == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert over_repeats([0.5]).low is None, "one run says nothing of luck"


def test_runs_with_splits_of_their_own_are_repeats():
    of = Measure(head="a", metric="ndcg@10", output="a", repeats="runs")
    found = figure(of, [{"a": np.array([0.0, 2.0])}, {"a": np.array([2.0, 2.0])}])
    assert found.runs == (1.0, 2.0)
    assert found.high == pytest.approx(over_repeats([1.0, 2.0]).high)


def test_seeds_of_a_fold_are_no_further_repeats():
    """Figures of two seeds: the interval is that of the five folds' means, at 4 degrees of freedom."""
    of = Measure(head="a", metric="rmse", output="a", repeats="places")
    values = [[0.80, 0.85, 0.90, 0.95, 1.00], [0.84, 0.87, 0.94, 0.97, 1.04]]
    found = figure(of, [{"a": np.array(folds)} for folds in values])
    assert found.runs == pytest.approx((0.82, 0.86, 0.92, 0.96, 1.02))
    half = 2.7764 * np.std(found.runs, ddof=1) / np.sqrt(5)
    assert (found.low, found.high) == pytest.approx((0.916 - half, 0.916 + half), abs=1e-5)


def test_two_rows_are_compared_pair_by_pair():
    """Users differ by far more than rows do; one row has one run, the other two."""
    label, off = stars(), np.random.default_rng(3).normal(0, 1, USERS)[USER]
    own = [{"a": label + 0.9 * off}, {"a": label + 0.89 * off}]
    found = paired(measure(label), own, [{"a": label + off}])
    error = np.sqrt(np.mean(off**2))
    assert found.difference == pytest.approx(-0.105 * error)
    assert found.ci_high - found.ci_low < 0.1 * error
    assert found.verdict == "better", "a lower error"


@pytest.mark.parametrize("runs", [1, 3])
def test_lists_are_compared_by_users_own_values(runs):
    own, other = np.array([0.5, 0.7, 0.9, 0.4]), np.array([0.4, 0.6, 0.8, 0.3])
    of = Measure(head="view", metric="ndcg@10", output="view")
    found = paired(of, [{"view": other}], [{"view": own}] * runs)
    assert (found.difference, found.ci_low, found.ci_high) == pytest.approx((-0.1, -0.1, -0.1))
    assert found.verdict == "worse"


@pytest.mark.parametrize("metric", ["rmse", "snips_rmse", "rmse_warm", "log_loss"])
def test_errors_are_better_when_lower_under_any_name(metric):
    assert lower_is_better(metric)
    assert not any(map(lower_is_better, ("auc", "auc_warm", "ndcg@10", "hr@10")))


def test_rows_keep_the_tables_order_and_unknown_ones_are_refused():
    rows = {name: Row(lambda _: None) for name in "abc"}
    assert wanted_rows(rows, ["c", "a"], 1) == ["a", "c"]
    assert wanted_rows(rows, [], 1) == ["a", "b", "c"]
    with pytest.raises(ConfigError, match="this set has: a, b, c"):
        wanted_rows(rows, ["d"], 1)


def test_a_difference_over_seeds_needs_two():
    rows = {"a": Row(lambda _: None), "b": Row(lambda _: None, least_seeds=2)}
    assert wanted_rows(rows, [], 1) == ["a"]
    assert wanted_rows(rows, [], 2) == ["a", "b"]
    with pytest.raises(ConfigError, match="--seeds 2"):
        wanted_rows(rows, ["b"], 1)


def test_some_rows_are_trained_only_where_they_are_asked_for():
    rows = {"a": Row(lambda _: None), "b": Row(lambda _: None, on_request=True)}
    assert wanted_rows(rows, [], 2) == ["a"]
    assert wanted_rows(rows, ["b", "a"], 2) == ["a", "b"]


def test_a_missing_lightgbm_says_so_before_anything_is_trained(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    rows = {"mmoe": Row(lambda _: None), "lightgbm": Row(lambda _: None)}
    assert wanted_rows(rows, ["mmoe"], 1) == ["mmoe"]
    with pytest.raises(ConfigError, match="needs lightgbm"):
        wanted_rows(rows, [], 1)


def test_a_missing_folder_of_the_json_says_so_before_anything_is_read(tmp_path, capsys):
    target = tmp_path / "nowhere" / "q.json"
    arguments = ["--set", "coat", "--data", str(tmp_path), "--json", str(target)]
    assert run(["bench", "quality", *arguments]) != 0
    assert "there is no folder" in capsys.readouterr().err


def test_every_set_can_be_opened_and_an_unknown_one_is_refused():
    for name in SETS:
        assert callable(set_of(name))
    with pytest.raises(ConfigError, match="census-income"):
        set_of("nothing")


def test_a_set_is_one_function_and_one_line(tmp_path, monkeypatch, capsys):
    """A set of this file alone is run by its name, and its JSON says which command made it."""
    rows = {"ours": Row((0.1, 0.2)), "mean": Row((0.0, 0.4), ours=False)}
    module = type(sys)("toy_set")
    module.open_toy = lambda folder, scratch: toy(rows, facts={"files": len(list(folder.iterdir()))})
    monkeypatch.setitem(sys.modules, "toy_set", module)
    monkeypatch.setitem(SETS, "toy", "toy_set:open_toy")
    arguments = ["bench", "quality", "--set", "toy", "--data", str(tmp_path), "--seeds", "2"]
    target = tmp_path / "toy.json"
    assert run([*arguments, "--rows", "ours,mean", "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    assert tree["best"]["row"] == "ours"
    assert tree["facts"] == {"files": 0}
    assert tree["command"] == (
        "recsys bench quality --set toy --data DIR --seeds 2 --rows ours,mean --json FILE"
    )
    assert "ours - mean" in capsys.readouterr().out


def test_the_report_is_json():
    rows = {"ours": Row((0.1, 0.2))}
    tree = measure_set(toy(rows), 1, [], silent).as_json()
    assert json.loads(json.dumps(tree, allow_nan=False)) == json.loads(json.dumps(tree))
