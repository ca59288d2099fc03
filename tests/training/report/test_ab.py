"""report ab: a planted difference is found, none is made up, leaks forbid a verdict, a page alone."""

import dataclasses
import json
import re
import shutil
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from recsys.bundle import load_bundle
from recsys.cli import run
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.metrics.effect import Effect
from recsys.metrics.inference import paired_bootstrap
from training.evaluation.evaluate import score_rows
from training.evaluation.head_rows import HeadRows
from training.predict import BundlePredictor
from training.report import ab
from training.report.ab import compare, shared_tasks
from training.report.ab_pages import SECTIONS, render, write_report
from training.report.ab_plots import day_plot, reliability_plot
from training.report.ab_report import ABReport, primary_comparisons
from training.report.console import print_decision
from training.report.decision import decide
from training.report.effect_plot import forest_plot
from training.report.off_policy import compare_lists_off_policy
from training.report.side import Side

LAST = 5


class Informed(BundlePredictor):
    """A planted better model: it sees the label through noise, the same noise every time."""

    def predictions(self, encoded):
        found = super().predictions(encoded)
        rng = np.random.default_rng(0)
        for task in self.bundle.config.tasks:
            label = np.nan_to_num(encoded.labels[task.name], nan=0.0)
            if task.kind.probability:
                found[task.name] = (0.3 * label + 0.6 * rng.random(label.size)).astype(np.float32)
        return found


@pytest.fixture(scope="module")
def bundle(bundle_folder):
    return load_bundle(bundle_folder)


@pytest.fixture(scope="module")
def window(shop_chain):
    return shop_chain[LAST - 1].day, shop_chain[LAST].day


def _compare(days, window, a, b, **options):
    sides = [Side(predictor=p, days=days) for p in (a, b)]
    settings = {"max_users": 15, "replicates": 200, "baselines": False} | options
    return compare(*sides, *window, **settings)


@pytest.fixture(scope="module")
def same(shop_chain, window, bundle):
    return _compare(shop_chain, window, BundlePredictor(bundle), BundlePredictor(bundle), baselines=True)


@pytest.fixture(scope="module")
def better(shop_chain, window, bundle):
    return _compare(shop_chain, window, BundlePredictor(bundle), Informed(bundle))


# --- what is concluded


def test_a_bundle_does_not_differ_from_itself(same):
    assert same.decision.outcome == "no evidence"
    assert "same bundle" in same.decision.headline
    effects = [e for head in same.heads.values() for e in head.effects] + list(same.lists.effects)
    assert {e.difference for e in effects} == {0.0}
    drawn = {e.metric: (e.ci_low, e.ci_high) for e in effects if e.replicates}
    assert set(drawn.values()) == {(0.0, 0.0)}
    assert {e.metric for e in effects} - set(drawn) == {"ece", "coverage_at_10"}, "these have no interval"


def test_a_planted_better_model_is_found(better):
    assert better.decision.outcome == "better"
    assert "click AUC" in better.decision.headline
    click = better.heads["click"]
    assert click.effects[0].verdict == "better"
    assert click.effects[0].ci_low > 0
    # Its lists are the same model's: nothing is claimed of them.
    assert {e.verdict for e in better.lists.effects} == {"no evidence", None}
    assert not any(e.differs for e in better.lists.effects)


def test_both_sides_have_the_labels_that_were_known_at_one_instant(same, shop_chain, window, bundle):
    """Where B's config finds an earlier end of the log, its lists would have less that is wanted."""
    earlier = shop_chain.as_known_at(shop_chain.end_of(LAST - 1) - timedelta(hours=12))
    a, b = (Side(predictor=BundlePredictor(bundle), days=days) for days in (shop_chain, earlier))
    found = compare(a, b, *window, max_users=15, replicates=200, baselines=False)
    assert {effect.difference for effect in found.lists.effects} == {0.0}
    assert found.window == same.window


def test_sides_are_not_confused(shop_chain, window, bundle):
    turned = _compare(shop_chain, window, Informed(bundle), BundlePredictor(bundle))
    assert turned.decision.outcome == "worse"
    assert turned.heads["click"].effects[0].difference < 0


def test_figures_are_the_paired_bootstraps_of_the_rows(better, shop_chain, window, bundle, config):
    evaluate = {t.name: [LAST - 1, LAST] for t in config.tasks}
    a = score_rows(BundlePredictor(bundle), shop_chain, evaluate)
    b = score_rows(Informed(bundle), shop_chain, evaluate)
    known = a["label_click"].is_not_null()
    lists = HeadRows.of(config.tasks[0], a).lists
    effect = paired_bootstrap(
        "list_auc",
        a.filter(known)["label_click"].to_numpy(),
        a.filter(known)["list_prediction_click"].to_numpy(),
        b.filter(known)["list_prediction_click"].to_numpy(),
        a.filter(known)["user_id"].to_numpy(),
        generator=np.random.default_rng(0),
        lists=lists,
        replicates=200,
        level=better.decision.level,
    )
    found = better.heads["click"].effects[0]
    assert (found.a, found.b, found.users, found.rows) == (
        effect.a,
        effect.b,
        effect.users,
        effect.rows,
    )
    assert found.ci_low == pytest.approx(effect.ci_low, abs=0.02)


def test_rows_are_paired_by_impression_and_user(config):
    """Two users share an id; B's rows come in another order and lack one."""
    predictions = {"prediction_click": [1, 2, 3], "list_prediction_click": [4, 5, 6]}
    a = pl.DataFrame({"impression_id": list("xxy"), "user_id": list("uvu"), **predictions})
    b = a[[1, 0]].with_columns(pl.col(*predictions) * 10)
    found = ab.paired_rows(a, b, config.tasks[:1])
    assert found.rows() == [("x", "u", 1, 4, 10, 40), ("x", "v", 2, 5, 20, 50)]


def test_primary_comparisons_share_the_error_rate(better):
    primary = primary_comparisons(better.heads, better.lists)
    assert better.decision.level == pytest.approx(1 - 0.05 / len(primary))
    assert {e.level for e in primary.values()} == {better.decision.level}
    assert len(better.decision.lines) == len(primary)


def test_days_that_a_bundle_trained_on_forbid_a_verdict(shop_chain, bundle):
    days = shop_chain[2].day, shop_chain[LAST].day
    report = _compare(shop_chain, days, BundlePredictor(bundle), Informed(bundle), replicates=100)
    assert report.decision.outcome == "not trustworthy"
    assert "A was trained on 1 of the scored days" in report.decision.headline
    assert any("overlaps training" in warning for warning in report.warnings)


def test_a_fresher_bundle_is_said_to_be_fresher(shop_chain, window, bundle):
    manifest = bundle.manifest.model_copy(update={"date": str(shop_chain[3].day)})
    older = dataclasses.replace(bundle, manifest=manifest)
    report = _compare(shop_chain, window, BundlePredictor(older), BundlePredictor(bundle), replicates=100)
    assert any("newer data" in warning for warning in report.warnings)


def _effect(verdict, metric="auc", diff=0.01):
    low, high = {"better": (0.005, 0.015), "worse": (-0.015, -0.005), "no evidence": (-0.01, 0.01)}[verdict]
    return Effect(
        metric=metric, a=0.7, b=0.7 + diff, difference=diff, ci_low=low, ci_high=high, p_value=0.01,
        level=0.99, higher_is_better=True, users=100, rows=1000, replicates=100,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "outcome", "said"),
    [
        (["no evidence", "no evidence"], "no evidence", "No evidence"),
        (["better", "no evidence"], "better", "B is better on one (+0.0100); no evidence on two"),
        (["no evidence", "worse"], "worse", "B is worse on two (+0.0100); no evidence on one"),
        (["better", "worse"], "mixed", "B is better on one (+0.0100), worse on two (+0.0100)"),
        (["better", "better"], "better", "B is better on one (+0.0100) and two (+0.0100)"),
        ([], "no evidence", "nothing could be compared"),
    ],
)
def test_the_decision_names_what_won(verdicts, outcome, said):
    primary = {name: _effect(v) for name, v in zip(("one", "two"), verdicts, strict=False)}
    found = decide(primary, [], alpha=0.05, same=False)
    assert found.outcome == outcome
    assert said in found.headline


def test_a_problem_outranks_every_figure():
    found = decide({"one": _effect("better")}, ["A was trained on it"], alpha=0.05, same=False)
    assert found.outcome == "not trustworthy"
    assert "better" not in found.headline


def test_an_undefined_metric_is_no_evidence():
    nothing = _effect("no evidence").model_copy(
        update={"a": None, "difference": None, "ci_low": None, "ci_high": None}
    )
    found = decide({"one": nothing}, [], alpha=0.05, same=False)
    assert found.outcome == "no evidence"
    assert "not defined" in found.lines[0]


# --- parts


def test_segments_split_the_users(better):
    click = [s for s in better.segments if s.head == "click"]
    users = [s for s in click if "users" in s.name]
    assert sum(s.rows for s in users) == better.heads["click"].a.rows
    assert any("never shown before" in s.name for s in click)
    for segment in better.segments:
        if segment.rows < 100 or segment.users < 20 or segment.positives < 20:
            assert segment.effect is None


def test_only_the_primary_comparisons_share_the_error_rate_that_was_asked_for(shop_chain, window, bundle):
    """The page says that all others have a level of 95 % each."""
    sides = BundlePredictor(bundle), Informed(bundle)
    asked = _compare(shop_chain, window, *sides, alpha=0.2)
    levels = {s.effect.level for s in asked.segments if s.effect}
    levels |= {e.level for h in asked.heads.values() for e in h.effects if e.metric != h.primary}
    assert levels == {0.95}
    assert asked.decision.level > 0.8


def test_the_terminal_shows_words_in_square_brackets(better, capsys):
    said = "set [policy] epsilon and [training] seed"
    decision = better.decision.model_copy(update={"headline": said})
    print_decision(better.model_copy(update={"decision": decision, "warnings": (said,)}), [])
    assert capsys.readouterr().out.count(said) == 2


def test_only_heads_with_one_label_are_compared(config):
    other = [
        config.tasks[0],
        config.tasks[1].model_copy(update={"window": 60}),
        config.tasks[2].model_copy(update={"name": "stars"}),
    ]
    assert [t.name for t in shared_tasks(config.tasks, other)] == ["click"]
    with pytest.raises(DataError, match="none has the same label"):
        shared_tasks(config.tasks[:1], other[1:])


def test_weights_of_a_loss_do_not_change_a_label(config):
    other = [t.model_copy(update={"weight": 9.0, "fusion_weight": 9.0}) for t in config.tasks]
    assert shared_tasks(config.tasks, other) == list(config.tasks)


# --- the page


def test_the_page_is_small_and_stands_alone(same):
    page = render(same, "report.html.j2")
    assert len(page.encode()) < 1_000_000
    assert not re.search(r"https?:|<script|<link|<img|<iframe|src=|href=|url\(|@import", page)
    assert page.index('id="decision"') < min(page.index(f'id="{name}"') for name, _ in SECTIONS)
    assert page.count("<svg") == page.count("</svg>") >= 4
    for name in ("item knn", "logistic regression", "click", "rating"):
        assert name in page


def test_the_files_hold_the_same_report(same, tmp_path):
    files = write_report(same, tmp_path / "deep")
    assert [f.name for f in files] == ["report.html", "report.md", "report.json"]
    assert ABReport.model_validate_json(files[2].read_text()) == same
    assert "NaN" not in files[2].read_text()
    assert "No evidence of a difference" in files[1].read_text()
    assert sorted(p.name for p in files[0].parent.iterdir()) == ["report.html", "report.json", "report.md"]
    before = files[0].read_text()
    write_report(same, tmp_path / "deep")
    assert files[0].read_text() == before, "the clock must not enter the page"


def test_an_unwritable_folder_is_an_error(same, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the report"):
        write_report(same, tmp_path / "file")


def test_markdown_tables_have_as_many_cells_as_columns(same, better):
    for report in (same, better):
        width = 0
        for line in render(report, "report.md.j2").splitlines():
            cells = line.count("|") if line.startswith("|") else 0
            assert not (cells and width) or cells == width, line
            width = cells


def test_names_are_escaped(better):
    strange = {"<b>x</b> AUC": _effect("better")}
    assert "<b>x" not in forest_plot(strange)
    heads = {"<i>click</i>": better.heads["click"]}
    assert "<i>click" not in render(better.model_copy(update={"heads": heads}), "report.html.j2")


def test_plots_survive_empty_and_constant_input():
    assert "svg" in reliability_plot([], [])
    assert day_plot("AUC", {date(2026, 1, 1): (None, None)}) == ""
    assert "svg" in day_plot("AUC", {date(2026, 1, 1): (0.5, 0.5), date(2026, 1, 2): (0.5, None)})
    nothing = _effect("no evidence").model_copy(update={"difference": None})
    assert "not defined" in forest_plot({"one": nothing})


def test_a_gain_points_to_the_better_system():
    loss = _effect("no evidence", metric="rmse", diff=-0.07).model_copy(
        update={"higher_is_better": False, "ci_low": -0.1, "ci_high": -0.02}
    )
    diff, low, high = loss.gain
    assert (diff, low, high) == pytest.approx((0.1, 0.02 / 0.7, 0.1 / 0.7))


def test_a_report_refuses_unknown_keys(same):
    said = json.loads(same.model_dump_json()) | {"surprise": 1}
    with pytest.raises(ValidationError, match="surprise"):
        ABReport.model_validate(said)


# --- the command


@pytest.fixture(scope="module")
def runs(bundle_folder, tmp_path_factory):
    """A runs folder of its own: the command writes stages into it."""
    folder = tmp_path_factory.mktemp("ab") / "runs"
    shutil.copytree(bundle_folder.parent, folder / "bundles")
    return folder


def _run(runs, log, bundle_folder, out, **changed):
    given = {
        "log": log.root,
        "runs": runs,
        "a": bundle_folder.name,
        "b": bundle_folder.name,
        "out": out,
        "replicates": 100,
    }
    given |= {"from": "2026-01-30", "to": "2026-01-30", "users": 5} | changed
    return run(["report", "ab", *(str(part) for key, value in given.items() for part in (f"--{key}", value))])


def test_the_command_writes_the_report(runs, shop_log, bundle_folder, tmp_path, capsys):
    assert _run(runs, shop_log, bundle_folder, tmp_path) == 0
    assert "NO EVIDENCE" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["decision"]["outcome"] == "no evidence"


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ({"b": "2026-01-01-nothing"}, 5, "no bundle"),
        ({"from": "2027-01-01", "to": "2027-01-02"}, 3, "no impressions from"),
        ({"from": "soon"}, 2, "YYYY-MM-DD"),
        ({"alpha": "2"}, 2, "alpha"),
    ],
)
def test_bad_input_says_what_is_wrong(runs, shop_log, bundle_folder, tmp_path, capsys, changed, code, said):
    assert _run(runs, shop_log, bundle_folder, tmp_path, **changed) == code
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_log_without_feedback_has_nothing_to_compare_by(runs, shop_log, bundle_folder, tmp_path, capsys):
    silent = InteractionLog(shutil.copytree(shop_log.root, tmp_path / "log"))
    shutil.rmtree(silent.root / "feedback")
    assert _run(runs, silent, bundle_folder, tmp_path / "out") == 3
    said = capsys.readouterr().err
    assert f"no feedback in the log {silent.root}: expected" in said
    assert "Traceback" not in said


def test_days_without_a_single_label_are_an_error(shop_chain, window, bundle):
    too_early = shop_chain.as_known_at(shop_chain.end_of(0))
    with pytest.raises(DataError, match="windows"):
        _compare(too_early, window, BundlePredictor(bundle), BundlePredictor(bundle))


def test_a_head_of_one_class_is_reported_without_a_verdict(better, config):
    """A day without a purchase: AUC is not defined, log loss is."""
    rng = np.random.default_rng(0)
    rows = pl.DataFrame(
        {
            "user_id": [f"u{i % 10}" for i in range(200)],
            "date": [date(2026, 1, 30)] * 200,
            "weight": np.ones(200),
            "list_group": np.arange(200) // 10,
            "examination": np.ones(200),
            "label_click": np.zeros(200),
            "prediction_click": rng.random(200),
            "b_prediction_click": rng.random(200),
        }
    )
    head = ab._head(config.tasks[0], rows, 100, 0.99, 0)
    by_metric = {effect.metric: effect for effect in head.effects}
    assert (by_metric["auc"].a, by_metric["auc"].verdict) == (None, "no evidence")
    assert by_metric["log_loss"].difference is not None
    page = render(better.model_copy(update={"heads": {"click": head}}), "report.html.j2")
    assert "not defined" in page


# --- what lists would have earned


def test_off_policy_values_are_compared_where_candidates_were_logged(shop_chain, shop_log, window, bundle):
    sides = [
        Side(predictor=p, days=shop_chain, log=shop_log) for p in (BundlePredictor(bundle), Informed(bundle))
    ]
    asked = {"seed": 0, "replicates": 50}
    same = compare_lists_off_policy(sides[0], sides[0], bundle.config.tasks, *window, **asked)
    assert {e.difference for both in same.by_task.values() for e in both.effects.values()} <= {0.0, None}
    assert set(same.by_task) == {"click", "purchase"}, "stars are not known of every impression"
    assert any("NOT TRUSTWORTHY" in note for note in same.notes), "the tiny log supports little"
    found = compare_lists_off_policy(*sides, bundle.config.tasks, *window, **asked)
    assert found.requests == same.requests > 0
    without = [Side(predictor=side.predictor, days=shop_chain) for side in sides]
    assert compare_lists_off_policy(*without, bundle.config.tasks, *window, **asked) is None


def test_off_policy_values_are_in_page_and_text(same, shop_chain, shop_log, window, bundle):
    side = Side(predictor=BundlePredictor(bundle), days=shop_chain, log=shop_log)
    earned = compare_lists_off_policy(side, side, bundle.config.tasks, *window, seed=0, replicates=50)
    report = same.model_copy(update={"off_policy": earned})
    page, text = render(report, "report.html.j2"), render(report, "report.md.j2")
    assert page.count("<td>cascade_dr</td>") == text.count("| cascade_dr |") == 2
    assert "NOT TRUSTWORTHY: the off-policy value of click" in page
    assert page.count(">not trustworthy</td>") == text.count("| not trustworthy |") > 0
    assert "the log has no candidate sets" in render(same, "report.html.j2")
    assert ABReport.model_validate_json(report.model_dump_json()) == report
