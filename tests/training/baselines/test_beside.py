"""What stands beside a night's figures: a linear model and simple lists, in little time."""

import json

import pytest

from training.baselines import beside
from training.baselines.beside import LINEAR, MODEL, figures_beside, lines_beside
from training.baselines.design import RecentDays, training_sample
from training.evaluation.eval_report import EvalReport
from training.evaluation.evaluate import evaluate
from training.predict import BundlePredictor

LAST = 5


@pytest.fixture(scope="module")
def evaluated():
    """Rating waits a day for its labels."""
    return {"click": [LAST], "purchase": [LAST], "rating": [LAST - 1]}


@pytest.fixture(scope="module")
def report(predictor, shop_chain, evaluated):
    return evaluate(predictor, shop_chain, evaluated, max_users=20, seed=3, beside=True)


def test_every_head_and_the_lists_have_figures_of_simple_systems_beside_them(report) -> None:
    read = EvalReport.model_validate_json(json.dumps(report.model_dump(mode="json"), sort_keys=True))
    found = figures_beside(read)
    assert found["click AUC inside lists"] == {
        MODEL: report.heads["click"].values["list_auc"],
        LINEAR: report.baselines[LINEAR].heads["click"].values["list_auc"],
    }
    assert set(found["rating RMSE"]) == {MODEL, LINEAR}
    (lists,) = (systems for name, systems in found.items() if "NDCG" in name)
    assert list(lists) == [MODEL, "own_history", "popular"]
    assert lists[MODEL] == report.ranking.values["ndcg_at_10"]
    assert found["items"] == {"wanted": report.ranking.relevant, "hidden": report.ranking.hidden}


def test_a_linear_model_is_measured_on_the_models_own_rows(report) -> None:
    for name, metrics in report.baselines[LINEAR].heads.items():
        assert metrics.rows == report.heads[name].rows


def better(report, name, **values):
    """Give the report with other figures of the linear model."""
    linear = report.baselines[LINEAR]
    head = linear.heads[name]
    changed = head.model_copy(update={"values": {**head.values, **values}})
    table = linear.model_copy(update={"heads": {**linear.heads, name: changed}})
    return report.model_copy(update={"baselines": {**report.baselines, LINEAR: table}})


def line_of(report, what) -> str:
    return next(line for line in lines_beside(report) if what in line)


def test_a_line_says_who_is_ahead_in_the_metrics_own_direction(report) -> None:
    assert line_of(better(report, "click", list_auc=0.99), "click AUC").endswith(
        "linear 0.9900; linear is ahead"
    )
    assert line_of(better(report, "click", list_auc=0.01), "click AUC").endswith("linear 0.0100")
    assert line_of(better(report, "rating", rmse=0.01), "rating RMSE").endswith(
        "linear 0.0100; linear is ahead"
    )
    assert line_of(better(report, "rating", rmse=9.0), "rating RMSE").endswith("linear 9.0000")


def test_large_days_are_not_encoded_for_it_and_that_is_said(predictor, shop_chain, evaluated, monkeypatch):
    monkeypatch.setattr(beside, "MOST_ROWS", 1)
    found = evaluate(predictor, shop_chain, evaluated, max_users=5, seed=3, beside=True)
    assert found.baselines[LINEAR].heads == {}
    assert line_of(found, "click") == "beside: click: linear not fitted, its day has more than 1 rows"


def test_a_day_is_encoded_once_for_all_heads(predictor, shop_chain, evaluated, monkeypatch) -> None:
    encode, found = BundlePredictor.encode_day, []

    def counted(self, days, i, tasks):
        found.append(days[i].path)
        return encode(self, days, i, tasks)

    monkeypatch.setattr(BundlePredictor, "encode_day", counted)
    evaluate(predictor, shop_chain, evaluated, max_users=20, seed=3, beside=True)
    of_log = [path for path in found if path in {day.path for day in shop_chain}]
    assert len(of_log) == len(set(of_log)) > 2


def test_days_in_memory_have_so_many_rows_at_most(predictor, shop_chain) -> None:
    one, other = (shop_chain.num_impressions(i) for i in (1, 2))
    for most, kept in ((one + other, True), (one + other - 1, False), (0, False)):
        recent = RecentDays(predictor, most)
        first = recent.encoded(shop_chain, 1)
        recent.encoded(shop_chain, 2)
        assert (recent.encoded(shop_chain, 1) is first) == kept


def test_it_learns_from_the_latest_days_only(predictor, shop_chain, config) -> None:
    click = config.tasks[0]
    whole = training_sample(predictor, shop_chain, click, 0)
    latest = training_sample(predictor, shop_chain, click, 0, most=1)
    assert set(latest.period) == {max(whole.period)}
    assert latest.label.size == (whole.period == max(whole.period)).sum()
    largest = max(set(whole.period), key=shop_chain.num_impressions)
    fewer = training_sample(
        predictor, shop_chain, click, 0, most_of_day=shop_chain.num_impressions(largest) - 1
    )
    assert largest not in set(fewer.period)
