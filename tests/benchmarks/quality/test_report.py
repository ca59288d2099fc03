import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality import SETS
from benchmarks.quality.command import measure_of
from benchmarks.quality.report import (
    Figure,
    Kept,
    ModelRow,
    QualityReport,
    against_baselines,
    choose,
    difference,
    over_rows,
    over_seeds,
    paired,
    wanted_rows,
)
from benchmarks.quality.tables import differences_table, rows_table
from recsys.cli import run
from recsys.errors import ConfigError, DataError
from recsys.metrics.effect import Effect
from recsys.metrics.pointwise import auc, rmse


def row(name, *, ours=True, **figures):
    heads = {
        "a": {
            metric: Figure(value=test, low=test, high=test, runs=(test,), validation=known)
            for metric, (known, test) in figures.items()
        }
    }
    return ModelRow(name=name, heads=heads, seeds=1, ours=ours)


def test_the_choice_is_made_on_validation():
    rows = [row("best on test", auc=(0.7, 0.9)), row("best on validation", auc=(0.8, 0.6))]
    assert choose(rows).name == "best on validation"


def test_a_baseline_is_never_chosen_and_a_loss_stays_in_the_table():
    rows = [row("trees", ours=False, auc=(0.9, 0.9)), row("trunk", auc=(0.8, 0.8))]
    assert choose(rows).name == "trunk"


def test_errors_are_better_when_lower():
    assert choose([row("near", rmse=(0.9, 1)), row("far", rmse=(1.1, 1))]).name == "near"


def test_one_row_is_chosen_for_all_metrics_whatever_their_units():
    """`both` is 1/3 behind on the errors and best on NDCG."""
    rows = [
        row("left", rmse=(1.00, 0), ndcg=(0.02, 0)),
        row("both", rmse=(1.01, 0), ndcg=(0.08, 0)),
        row("lists", rmse=(1.03, 0), ndcg=(0.08, 0)),
    ]
    assert choose(rows).name == "both"
    tied = [row("lists", rmse=(1.03, 0), mae=(1.03, 0), ndcg=(0.9, 0))]
    assert choose([*tied, row("errors", rmse=(1.0, 0), mae=(1.0, 0), ndcg=(0.1, 0))]).name == "errors"


def test_figures_that_are_all_the_same_or_nothing_choose_nothing():
    rows = [row("first", rmse=(1.0, 0), ndcg=(0.0, 0)), row("second", rmse=(0.9, 0), ndcg=(0.0, 0))]
    assert choose(rows).name == "second"
    assert choose(rows[:1]).name == "first"


def test_without_validation_nothing_is_chosen():
    with pytest.raises(DataError, match="without looking at the test"):
        choose([row("a", auc=(None, 0.9))])


def test_seeds_give_students_interval():
    found = over_seeds([1.0, 2.0, 3.0])
    assert found.value == 2
    assert found.high - found.value == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    fifteen = over_seeds([0.0, 1.0, 2.0] * 5)
    assert fifteen.high - 1 == pytest.approx(2.145 * math.sqrt(10 / 14 / 15), rel=1e-3), (
        "14 degrees of freedom"
    )


def test_the_interval_of_one_run_is_unknown_and_null_in_the_json():
    once = ModelRow(name="once", heads={"a": {"auc": over_seeds([0.5], [0.5])}}, seeds=1)
    report = QualityReport(name="s", protocol="", interval="", budget="", rows=(once,))
    tree = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert tree["rows"][0]["heads"]["a"]["auc"]["low"] is None
    assert rows_table(report).row_count == 1


def test_rows_give_a_bootstrap_interval_around_the_mean_of_seeds():
    rng = np.random.default_rng(0)
    label = (rng.random(2000) < 0.3).astype(float)
    predictions = [label + rng.normal(0, 1, 2000) for _ in range(2)]
    found = over_rows(auc, label, predictions, [0.5, 0.7])
    assert found.value == pytest.approx(np.mean([auc(label, p) for p in predictions]))
    assert found.low < found.value < found.high
    assert 0.01 < found.high - found.low < 0.06
    assert found.validation == pytest.approx(0.6)


def test_draws_of_one_class_are_left_out_of_the_interval():
    """One positive among four: a third of the draws have none."""
    label = np.array([1.0, 0, 0, 0])
    found = over_rows(auc, label, [np.array([0.5, 0.1, 0.2, 0.9])])
    assert math.isnan(auc(label, label, np.array([0.0, 1, 1, 1])))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_what_is_no_figure_stands_in_no_table():
    """An AUC of one class, and anything of no rows: the row keeps the others, and the JSON is JSON."""
    one_class = over_rows(auc, np.zeros(3), [np.arange(3.0)], [math.nan])
    of_nothing = over_rows(rmse, np.zeros(0), [np.zeros(0)])
    fine = over_rows(rmse, np.zeros(3), [np.ones(3)], [1.0])
    kept = ModelRow(
        name="r", heads={"a": {"auc": one_class, "rmse": fine}, "b": {"rmse": of_nothing}}, seeds=1
    )
    assert {head: set(of) for head, of in kept.heads.items()} == {"a": {"rmse"}}
    effect = Effect(
        metric="auc",
        a=0.5,
        b=0.6,
        difference=0.1,
        ci_low=math.nan,
        ci_high=math.nan,
        p_value=math.nan,
        users=1,
        rows=3,
        replicates=0,
    )
    unknown = difference("r", "s", "a", effect)
    none = replace(unknown, value=math.nan)
    report = QualityReport(
        name="s", protocol="", interval="", budget="", rows=(kept,), differences=(unknown, none)
    )
    tree = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert [d["low"] for d in tree["differences"]] == [None]
    assert differences_table(report).row_count == 1


def test_a_table_has_the_columns_of_all_rows():
    """The first row has no lists; of a head whose lists come later, the columns still stand together."""
    figure = over_seeds([0.5])
    rows = (
        ModelRow(name="biases", heads={"cart": {"auc": figure}, "buy": {"auc": figure}}, seeds=1),
        ModelRow(name="ease", heads={"cart": {"ndcg@10": figure}}, seeds=1),
    )
    published = {"paper": {"view": {"ndcg@10": 0.25}}}
    report = QualityReport(name="s", protocol="", interval="", budget="", rows=rows, published=published)
    table = rows_table(report)
    assert [c.header for c in table.columns[1:-2]] == ["cart auc", "cart ndcg@10", "buy auc", "view ndcg@10"]
    assert list(table.columns[2].cells) == ["–", "0.5000", "–"]
    assert list(table.columns[4].cells) == ["–", "–", "0.2500"]


def test_a_missing_lightgbm_says_so_before_anything_is_trained(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    assert wanted_rows(["mmoe", "lightgbm"], ["mmoe"]) == ["mmoe"]
    with pytest.raises(ConfigError, match="needs lightgbm"):
        wanted_rows(["mmoe", "lightgbm"], [])


def test_a_missing_folder_of_the_json_says_so_before_anything_is_read(tmp_path, capsys):
    target = tmp_path / "nowhere" / "q.json"
    arguments = ["--set", "coat", "--data", str(tmp_path), "--json", str(target)]
    assert run(["bench", "quality", *arguments]) != 0
    assert "there is no folder" in capsys.readouterr().err


def test_rows_keep_the_tables_order_and_unknown_ones_are_refused():
    assert wanted_rows(["a", "b", "c"], ["c", "a"]) == ["a", "c"]
    assert wanted_rows(["a", "b"], []) == ["a", "b"]
    with pytest.raises(ConfigError, match="this set has: a, b"):
        wanted_rows(["a", "b"], ["d"])


def test_every_set_has_a_function_and_an_unknown_one_is_refused():
    for name in SETS:
        assert callable(measure_of(name))
    with pytest.raises(ConfigError, match="census-income"):
        measure_of("nothing")


def test_rows_of_a_group_are_drawn_together():
    """Three rows of one user and three of another: a draw holds whole users, so three values only."""
    label, prediction = np.zeros(6), np.array([1.0, 1, 1, 2, 2, 2])
    drawn = set()

    def mean(_label, prediction, weight):
        drawn.add(round(float(np.average(prediction, weights=weight)), 6))
        return 0.0

    over_rows(mean, label, [prediction], group=np.array([7, 7, 7, 9, 9, 9]))
    assert drawn == {1.0, 1.5, 2.0}


@pytest.mark.parametrize(
    ("low", "high", "said"), [(-0.2, -0.1, "helps"), (-0.1, 0.1, "no evidence"), (0.1, 0.2, "hurts")]
)
def test_a_lower_error_helps(low, high, said):
    effect = Effect(
        metric="rmse",
        a=1.0,
        b=1.0 + (low + high) / 2,
        difference=(low + high) / 2,
        ci_low=low,
        ci_high=high,
        p_value=0.5,
        users=9,
        rows=9,
        replicates=9,
        higher_is_better=False,
    )
    found = difference("weighted", "plain", "rating", effect)
    assert (found.verdict, found.value) == (said, effect.difference)


def test_the_chosen_row_is_compared_with_each_baseline_pair_by_pair():
    """Users differ by far more than rows do; the baseline has one run, ours two, and another of ours none."""
    rng = np.random.default_rng(0)
    label, user = rng.normal(3, 1, 600), np.repeat(np.arange(60), 10)
    off = rng.normal(0, 1, 60)[user]
    kept = Kept(
        head="a",
        metric="snips_rmse",
        predictions={"best": [label + 0.9 * off, label + 0.89 * off], "means": [label + off]},
        pooled="rmse",
        label=label,
        user=user,
    )
    rows = [
        row("better on test", rmse=(1.1, 0.5)),
        row("best", rmse=(1.0, 0.9)),
        row("means", ours=False, rmse=(0.9, 1)),
        row("unkept", ours=False, rmse=(0.9, 1)),
    ]
    (found,) = against_baselines(rows, [kept])
    assert (found.row, found.against, found.metric, found.verdict) == ("best", "means", "snips_rmse", "helps")
    error = np.sqrt(np.mean(off**2))
    assert found.value == pytest.approx(-0.105 * error)
    assert found.high - found.low < 0.1 * error
    assert against_baselines(rows[2:], [kept]) == []


def test_lists_are_compared_by_users_own_values():
    own, other = np.array([0.5, 0.7, 0.9, 0.4]), np.array([0.4, 0.6, 0.8, 0.3])
    for runs in (1, 3):
        kept = Kept(head="view", metric="ndcg@10", predictions={"ours": [own], "ease": [other] * runs})
        found = paired(kept, "ease", "ours")
        assert (found.value, found.low, found.high) == pytest.approx((-0.1, -0.1, -0.1))
        assert (found.metric, found.verdict) == ("ndcg@10", "hurts")
