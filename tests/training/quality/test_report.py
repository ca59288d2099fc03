import json
import math

import numpy as np
import pytest

from recsys.errors import ConfigError, DataError
from recsys.metrics.inference import Effect
from recsys.metrics.pointwise import auc
from training.quality import SETS
from training.quality.command import measure_of
from training.quality.report import (
    Figure,
    ModelRow,
    QualityReport,
    choose,
    difference,
    over_rows,
    over_seeds,
    wanted_rows,
)


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


def test_one_row_is_chosen_for_all_metrics():
    rows = [row("left", auc=(0.9, 0), gauc=(0.5, 0)), row("both", auc=(0.85, 0), gauc=(0.8, 0))]
    assert choose(rows).name == "both"


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
    assert report.as_table().row_count == 1


def test_rows_give_a_bootstrap_interval_around_the_mean_of_seeds():
    rng = np.random.default_rng(0)
    label = (rng.random(2000) < 0.3).astype(float)
    predictions = [label + rng.normal(0, 1, 2000) for _ in range(2)]
    found = over_rows(auc, label, predictions, [0.5, 0.7])
    assert found.value == pytest.approx(np.mean([auc(label, p) for p in predictions]))
    assert found.low < found.value < found.high
    assert 0.01 < found.high - found.low < 0.06
    assert found.validation == pytest.approx(0.6)


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
        diff=(low + high) / 2,
        ci_low=low,
        ci_high=high,
        p_value=0.5,
        num_users=9,
        num_rows=9,
        replicates=9,
        higher_is_better=False,
    )
    found = difference("weighted", "plain", "rating", effect)
    assert (found.verdict, found.value) == (said, effect.diff)
