import json
import math
from dataclasses import replace

import pytest

from benchmarks.quality.quality_set import QualitySet
from benchmarks.quality.report import Figure, ModelRow, QualityReport, choose, choose_lists, difference
from recsys.errors import DataError
from recsys.metrics.effect import Effect

SET = QualitySet(name="s", protocol="", interval="", budget="", rows={}, validation=[], test=[])


def figure(value):
    return Figure(value=value, low=None, high=None, runs=(value,))


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


def test_lists_of_a_source_stand_beside_the_heads_of_another_row():
    """One bundle has both; on validation alone, and only where the source is ahead."""
    heads = [row("trunk", auc=(0.8, 0.7), ndcg=(0.1, 0.3)), row("other", auc=(0.7, 0.9), ndcg=(0.12, 0.2))]
    source, worse = row("source", ndcg=(0.2, 0.15)), row("worse", ndcg=(0.05, 0.9))
    rows = (source, worse, *heads, row("ease", ours=False, ndcg=(0.9, 0.9)))
    chosen = choose(rows)
    assert chosen in heads
    assert choose_lists(rows, chosen) is source
    assert choose_lists((worse, *heads), chosen) is None
    best = QualityReport(of=SET, rows=rows).as_json()["best"]
    assert best == {"row": chosen.name, "lists": "source", "a": {"auc": best["a"]["auc"], "ndcg": 0.15}}
    assert choose([source, worse]) is source, "without a row of all figures"


def test_a_source_with_less_error_is_ahead():
    trunk, source = row("trunk", rmse=(1.0, 0), ndcg=(0.1, 0)), row("source", rmse=(0.9, 0))
    assert choose_lists([trunk, source], trunk) is source


def test_without_validation_nothing_is_chosen():
    with pytest.raises(DataError, match="without looking at the test"):
        choose([row("a", auc=(None, 0.9))])


def test_what_is_no_figure_stands_in_no_table():
    """An AUC of one class, and anything of no rows: the row keeps the others, and the JSON is JSON."""
    of_one_class, of_nothing = figure(math.nan), figure(math.nan)
    fine = replace(figure(1.0), validation=1.0)
    kept = ModelRow(
        name="r",
        heads={
            "a": {"auc": of_one_class, "rmse": fine},
            "b": {"rmse": of_nothing},
        },
        seeds=1,
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
    unknown = difference("r", "s", ("a", "auc"), effect)
    none = replace(unknown, value=math.nan)
    report = QualityReport(of=SET, rows=(kept,), differences=(unknown, none))
    tree = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert [d["low"] for d in tree["differences"]] == [None]


@pytest.mark.parametrize(
    ("low", "high", "said"), [(-0.2, -0.1, "better"), (-0.1, 0.1, "no evidence"), (0.1, 0.2, "worse")]
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
    found = difference("weighted", "plain", ("rating", "rmse"), effect)
    assert (found.verdict, found.value) == (said, effect.difference)
