"""A metric over rows and one over lists, added by this file alone, are measured and shown everywhere."""

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from recsys.bundle import load_bundle
from recsys.config import GateConfig
from recsys.head_kinds import HEAD_KINDS
from recsys.metrics.effect import Effect
from recsys.metrics.metric import ListMetric, RowMetric
from recsys.metrics.pooled import ratio_of_sums
from recsys.metrics.table import METRICS
from training.evaluation.console import print_report
from training.evaluation.evaluate import evaluate, score_rows
from training.gate.heads import check_heads
from training.gate.ranked_lists import check_lists
from training.predict import BundlePredictor
from training.report.ab import compare
from training.report.ab_pages import render
from training.report.side import Side
from training.report.transfer.advice import advise
from training.report.transfer.transfer_pages import render_transfer
from training.report.transfer.transfer_report import HeadTransfer, Health, Sizes, TransferReport

LAST = 5
ROWS, LISTS = "spread", "first_place"


def _positives(rows, user):
    """Give the mean prediction of the positive rows, as a function of a draw of users."""
    weight = np.bincount(user, rows.label)
    return ratio_of_sums(np.bincount(user, rows.label * rows.prediction, weight.size), weight)


@pytest.fixture(scope="module", autouse=True)
def added():
    row_metric = RowMetric(
        title="Mean of positives",
        higher_is_better=True,
        reads="probability",
        value=lambda rows: _positives(rows, np.zeros(rows.label.size, int))(np.ones(1)),
        pooled=_positives,
        gate_limit="max_ece",
    )
    list_metric = ListMetric(
        title="Hit at place 1",
        higher_is_better=True,
        reads="shown",
        k=1,
        of_users=lambda lists: lists.matches.hit.mean(axis=1),
        gate_ratio="min_recall_ratio",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, ROWS, row_metric)
        patch.setitem(METRICS, LISTS, list_metric)
        yield


@pytest.fixture(scope="module")
def predictor(bundle_folder):
    return BundlePredictor(load_bundle(bundle_folder))


@pytest.fixture(scope="module")
def evaluated(config):
    return {task.name: [LAST - 1, LAST] for task in config.tasks}


@pytest.fixture(scope="module")
def report(predictor, shop_chain, evaluated):
    return evaluate(predictor, shop_chain, evaluated, max_users=15, baselines=True, fitted=False)


@pytest.fixture(scope="module")
def comparison(predictor, shop_chain, report):
    side = Side(predictor=predictor, days=shop_chain)
    days = shop_chain[LAST - 1].day, shop_chain[LAST].day
    found = compare(side, side, *days, max_users=15, replicates=100, baselines=False)
    return found.model_copy(update={"baselines": report.baselines})


def test_evaluate_measures_them_in_every_part_of_its_json(report):
    said = json.loads(report.model_dump_json())
    clicks = [said["heads"]["click"], *(day["click"] for day in said["by_day"].values())]
    clicks += [said["baselines"]["item_rate"]["heads"]["click"]]
    assert all(0 < head["values"][ROWS] < 1 for head in clicks)
    assert said["baselines"]["popular"]["heads"]["click"]["values"][ROWS] is None, "counts only order"
    assert ROWS not in said["heads"]["rating"]["values"], "it is of probabilities"
    rankings = [said["ranking"], said["baselines"]["popular"]["ranking"]]
    assert all(0 <= ranking["values"][LISTS] <= 1 for ranking in rankings)


def test_the_terminal_shows_them(report, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    ranking = report.ranking.model_copy(update={"hidden": 1})
    print_report(report.model_copy(update={"ranking": ranking}))
    said = capsys.readouterr().out
    assert "[policy] repeat = " in said, "no markup"
    assert METRICS[ROWS].title in said
    assert "a list is a request; positions count alike" in said
    assert METRICS[LISTS].title in said
    assert f"{report.heads['click'].values[ROWS]:.4f}" in said


def test_every_figure_of_the_lists_stands_on_a_narrow_terminal_too(report, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_report(report)
    lines = capsys.readouterr().out.splitlines()
    ours = " ".join(line for line in lines if line.split()[:1] == ["model"]).split()
    shown = [name for name in report.ranking.values if "terminal" in METRICS[name].tables]
    for name in shown:
        assert f"{report.ranking.values[name]:.{METRICS[name].digits}f}" in ours
    assert ours[-1] == f"{report.ranking.lists:,}"


def test_the_ab_report_compares_them_in_json_markdown_and_html(comparison):
    said = json.loads(comparison.model_dump_json())
    heads = {effect["metric"]: effect for effect in said["heads"]["click"]["effects"]}
    lists = {effect["metric"]: effect for effect in said["lists"]["effects"]}
    assert heads[ROWS]["a"] == heads[ROWS]["b"] > 0
    assert heads[ROWS]["replicates"] == 100
    assert lists[LISTS]["users"] > 1
    # of each head, and of the lists: once among the differences, once in the table of simple systems
    probabilities = sum(head.probability for head in comparison.heads.values())
    for template in ("report.md.j2", "report.html.j2"):
        page = render(comparison, template)
        assert page.count(METRICS[ROWS].title) == 2 * probabilities == 4
        assert page.count(METRICS[LISTS].title) == 2


def test_the_gate_checks_them(predictor, shop_chain, evaluated, report):
    rows = score_rows(predictor, shop_chain, evaluated)
    config = GateConfig(min_rows=50)
    names = [check.name for check in check_heads(predictor.bundle.config.tasks, rows, None, config, 0)]
    assert "click Mean of positives" in names
    lists = {check.name: check for check in check_lists(report.ranking, report.ranking, config)}
    assert lists["Hit at place 1"].numbers["challenger"] == report.ranking.values[LISTS]


def test_a_head_kind_may_name_it_as_its_primary_metric(predictor, shop_chain, evaluated, monkeypatch):
    monkeypatch.setitem(HEAD_KINDS, "binary", replace(HEAD_KINDS["binary"], metric=ROWS))
    rows = score_rows(predictor, shop_chain, evaluated)
    tasks, config = predictor.bundle.config.tasks, GateConfig(min_rows=50, replicates=20)
    for champion in (None, rows):
        assert check_heads(tasks, rows, champion, config, 0)[0].name == "click Mean of positives"
    side = Side(predictor=predictor, days=shop_chain)
    day = shop_chain[LAST].day
    found = compare(side, side, day, day, max_users=5, replicates=100, baselines=False)
    assert any(line.startswith("click Mean of positives: A 0.") for line in found.decision.lines)


def test_the_transfer_report_names_it():
    effect = Effect(
        metric=ROWS, a=0.1, b=0.2, difference=0.1, ci_low=0.05, ci_high=0.15, p_value=0.01, users=9, rows=99,
        replicates=100,
    )  # fmt: skip
    day = date(2026, 1, 30)
    head = HeadTransfer(
        metric=ROWS, alone=(0.1, 0.1), shared=(0.2, 0.2), effect=effect, evaluated_on=day, train_first=day,
        train_last=day, train_labels=10, train_positives=5,
    )  # fmt: skip
    heads = {"click": head}
    report = TransferReport(
        advice=advise(heads, []), night=day, seeds=(0, 1), trunk="mmoe", balancing="fixed", epochs=1,
        heads=heads, sizes=Sizes(shared=1, alone={"click": 1}), losses=("click",), cosines=(), curves=(),
        affinities=(), probes=0, findings=(), alpha=0.05, replicates=100,
        health=Health(gates={}, entropy={}, dead_experts=None, dead_units={"click": 0.0}),
    )  # fmt: skip
    assert "click: Mean of positives 0.1000 alone" in report.advice.reasons[0]
    for template in ("transfer.md.j2", "transfer.html.j2"):
        assert METRICS[ROWS].title in render_transfer(report, template)
