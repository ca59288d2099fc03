"""Two head kinds that only this file knows are found everywhere, from the config to the served list.

`count` predicts how often something was done (Poisson), `rare` the probability of a rare event. Neither
shares its losses, link or primary metric with a kind of the project.
"""

import ast
import json
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import nn
from torch.nn import functional

from features.store import open_store
from recsys.bundle import load_bundle
from recsys.calibration import Affine
from recsys.calibrators import platt
from recsys.cli import run
from recsys.errors import ConfigError
from recsys.head_kinds import HEAD_KINDS, HeadKind
from recsys.log import InteractionLog
from recsys.snapshot import DaySnapshot
from serving.app import Server
from serving.client import RecsysClient
from serving.clock import SimulatedClock
from serving.server_options import ServerOptions
from training.night.run import Night, run_night
from training.publish import publish

ROOT = Path(__file__).parents[2]
NIGHT, LATER = date(2026, 1, 29), date(2026, 1, 30)
NOON_MS = int(datetime(2026, 1, 30, 12, tzinfo=UTC).timestamp() * 1000)


class LogRate(nn.Module):
    """The score, and a bias of the head's own."""

    def __init__(self, task):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, score_B):
        return score_B + self.bias


def rate(logits_B, task):
    return logits_B.exp().clamp(task.low, task.high)


def poisson(logits_B, label_B, task):
    return functional.poisson_nll_loss(logits_B, label_B, log_input=True, reduction="none")


def ratio(rows, task):
    scale = rows.known.label.mean() / rows.known.prediction.mean()
    return Affine(scale=float(scale), offset=0.0, low=task.low, high=task.high)


def probability(logits_B, task):
    return logits_B.sigmoid()


def weighted(logits_B, label_B, task):
    loss_B = functional.binary_cross_entropy_with_logits(logits_B, label_B, reduction="none")
    return loss_B * (1 + label_B)


def shift(rows, task):
    return platt(rows, task)


KINDS = {
    "count": HeadKind(
        link=f"{__name__}:LogRate",
        predict=f"{__name__}:rate",
        losses={"poisson": f"{__name__}:poisson"},
        calibrators={"ratio": f"{__name__}:ratio", "none": "recsys.calibrators:identity"},
        metric="mae",
        batch_metric="mae",
        probability=False,
        label="value",
        aggregate="mean",
        history="event",
        options={"low": 0.0, "high": 20.0, "step": 1.0},
    ),
    "rare": HeadKind(
        link=f"{__name__}:LogRate",
        predict=f"{__name__}:probability",
        losses={"weighted": f"{__name__}:weighted"},
        calibrators={"shift": f"{__name__}:shift", "none": "recsys.calibrators:identity"},
        metric="log_loss",
        batch_metric="log_loss",
        probability=True,
        label="event",
        aggregate="rate",
        history="event",
        options={},
    ),
}
TASKS = [
    {"name": "click", "feedback": "click", "head": "binary", "window": "1h"},
    {"name": "buy", "feedback": "purchase", "head": "rare", "window": "2h", "parent": "click"},
    {"name": "visits", "feedback": "visit", "head": "count", "window": "1h", "space": "observed"},
]


@pytest.fixture(scope="module")
def kinds():
    with pytest.MonkeyPatch.context() as patch:
        for name, kind in KINDS.items():
            patch.setitem(HEAD_KINDS, name, kind)
        yield


@pytest.fixture(scope="module")
def settings(kinds, make_config):
    return make_config(
        task=TASKS,
        features={"history_kinds": ["click", "purchase", "visit"]},
        training={"epochs": 3},
        gate={"min_rows": 20, "replicates": 20, "max_ece": 0.5, "min_list_auc": 0.0},
    )


@pytest.fixture(scope="module")
def log(shop_log, tmp_path_factory):
    """Give every click a number of visits, many where the screen is small."""
    log = InteractionLog(tmp_path_factory.mktemp("visits") / "log")
    for table in ("impressions", "users", "items"):
        for day in shop_log.days(table):
            log.write(table, day, shop_log.read(table, day))
    shown = pl.concat([shop_log.read("impressions", day) for day in shop_log.days("impressions")])
    devices = shown.select("impression_id", "user_id", "context_device")
    for day in shop_log.days("feedback"):
        rows = shop_log.read("feedback", day)
        clicks = rows.filter(pl.col("kind") == "click").join(
            devices, on=["impression_id", "user_id"], how="left"
        )
        number = pl.int_range(pl.len()) % 3
        visits = clicks.with_columns(
            feedback_id=pl.col("feedback_id") + "-visit",
            kind=pl.lit("visit"),
            value=pl.when(pl.col("context_device") == "mobile").then(18.0 + number).otherwise(1.0 + number),
        )
        log.write("feedback", day, pl.concat([rows, visits.select(rows.columns)]))
    return log


@pytest.fixture(scope="module")
def night(settings, log, tmp_path_factory):
    night = Night(config=settings, log=log, runs=tmp_path_factory.mktemp("runs"), date=NIGHT)
    return night, run_night(night)


@pytest.fixture(scope="module")
def bundle(night):
    return load_bundle(night[0].registry.require(night[1].evaluated))


def test_the_config_knows_them_and_their_options(settings, make_config):
    assert [t.loss_name for t in settings.tasks] == ["bce", "weighted", "poisson"]
    assert settings.tasks[2].prediction_range == (0.0, 20.0)
    assert {k: v for k, v in settings.calibration.items() if k in KINDS} == {
        "count": "ratio",
        "rare": "shift",
    }
    wrong = [
        ({"calibration": {"count": "platt"}}, "'platt' is no calibrator of count heads; known: ratio, none"),
        ({"task": [{**TASKS[2], "loss": "mse"}]}, "'mse' is no loss of count heads; known: poisson"),
        ({"task": [{**TASKS[0], "head": "rare", "high": 9}]}, "not read by rare heads; .* or 'count'"),
    ]
    for sections, message in wrong:
        with pytest.raises(ConfigError, match=message):
            make_config(feature=[], **sections)


def _snapshot(night):
    folders = (night[0].stages.root / "features").iterdir()
    return next(s for s in (DaySnapshot(NIGHT, f) for f in folders) if s.manifest["day"] == str(NIGHT))


def test_labels_and_aggregates_are_those_of_the_kind(night, log):
    snapshot = _snapshot(night)
    items = snapshot.table("items")
    events = pl.concat([log.read("feedback", d) for d in log.days("feedback") if d <= NIGHT])
    mine = events.filter(pl.col("kind") == "visit")
    late = mine.filter(pl.col("received_at").dt.date() > NIGHT)
    assert items["visits_count_life"].sum() == mine.height - late.height
    assert items["visits_steps_life"].sum() == mine["value"].sum() - late["value"].sum()
    assert items["buy_shown_life"].sum() > 0
    assert {"visits_shown_life", "buy_steps_life"}.isdisjoint(items.columns)


def test_histories_show_the_event_alone_where_the_kind_says_so(bundle):
    assert bundle.encoder.history == {}
    assert [codes for _, codes in bundle.manifest.inputs["history_kinds"]] == [1, 1, 1]


def test_the_head_is_trained_by_its_own_link_and_loss_and_calibrated(bundle):
    assert bundle.weights["ranker.heads.links.visits.bias"] > 0.01, "visits are many"
    assert bundle.weights["ranker.heads.links.buy.bias"] < -0.01, "purchases are few"
    calibrator = bundle.manifest.calibration["visits"]
    assert (calibrator.kind, calibrator.offset) == ("affine", 0)
    assert calibrator.scale != 1
    assert bundle.manifest.calibration["buy"].kind == "platt_parent", "a child of click"
    assert (bundle.manifest.fusion.terms["visits"].low, bundle.manifest.fusion.terms["visits"].high) == (
        0,
        20,
    )


def test_the_gate_compares_by_the_primary_metric(night):
    checks = {check.name for check in night[1].decision.checks}
    assert {"buy log loss", "buy ECE", "visits MAE"} <= checks
    refit = {f"visits {of} of the refit, on days it has learned" for of in ("MAE", "shift")}
    others = checks - {"visits MAE"} - refit
    assert not any(name.startswith("visits") for name in others), others


def test_evaluate_and_the_reports_have_its_figures(night, log, bundle, tmp_path, capsys):
    common = ["--runs", str(night[0].runs), "--log", str(log.root), "--from", str(LATER), "--to", str(LATER)]
    file = tmp_path / "eval.json"
    assert run(["evaluate", *common, "--bundle", bundle.version, "--users", "5", "--json", str(file)]) == 0
    heads = json.loads(file.read_text())["heads"]
    assert set(heads["visits"]["values"]) == {"rmse", "mae", "list_concordance"}
    assert heads["visits"]["values"]["mae"] < 12, "nothing learned is off by more"
    assert heads["buy"]["values"]["log_loss"] < 0.5
    assert "visits" in capsys.readouterr().out
    ab = ["--a", bundle.version, "--b", bundle.version, "--replicates", "100", "--users", "5"]
    assert run(["report", "ab", *common, *ab, "--out", str(tmp_path / "ab")]) == 0
    found = json.loads((tmp_path / "ab" / "report.json").read_text())["heads"]
    assert {name: head["effects"][0]["metric"] for name, head in found.items()} == {
        "click": "list_auc",
        "buy": "log_loss",
        "visits": "mae",
    }
    for page in ("report.md", "report.html"):
        assert "visits" in (tmp_path / "ab" / page).read_text()


def test_the_server_answers_with_its_predictions(night, log, settings):
    registry, version = night[0].registry, night[1].evaluated
    if registry.current() is None:  # held: a shop this small need not beat the mean
        publish(open_store(settings.store, night[0].runs), registry, version, _snapshot(night))
        registry.activate(version)
    options = {"clock": SimulatedClock(NOON_MS), "listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}
    server = Server(ServerOptions(config=settings, log=log.root, runs=night[0].runs, **options))
    server.start()
    try:
        with RecsysClient(f"127.0.0.1:{server.port}", timeout_s=120) as client:
            answer = client.recommend("stranger", 10, context={"device": "mobile"})
    finally:
        server.stop(1.0)
    assert answer.degradation == ()
    for item in answer.items:
        assert set(item.predictions) == {"click", "buy", "visits"}
        assert 0 < item.predictions["buy"] <= item.predictions["click"] < 1
        assert 0 <= item.predictions["visits"] <= 20


def _named_kinds(path):
    """Find where a file compares with, looks up or matches a head kind's name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript):
            parts = [node.slice]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        else:
            continue
        names = {c.value for part in parts for c in ast.walk(part) if isinstance(c, ast.Constant)}
        if names & {"binary", "regression", "ordinal"}:
            yield f"{path.relative_to(ROOT)}:{node.lineno}"


def test_no_place_branches_on_the_name_of_a_head_kind():
    files = [f for room in ("recsys", "features", "training", "serving") for f in (ROOT / room).rglob("*.py")]
    table = ROOT / "recsys" / "head_kinds.py"
    assert list(_named_kinds(table)), "what is looked for is found where it is"
    assert [place for f in files if f != table for place in _named_kinds(f)] == []
