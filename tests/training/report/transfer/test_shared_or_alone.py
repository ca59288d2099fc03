"""report transfer: budgets match, watching changes nothing, files agree, dials move the verdict."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.build import build_snapshots
from features.days import Days
from features.labels import make_labels
from recsys.cli import run
from recsys.config import load_config
from recsys.errors import ConfigError, DataError
from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import write_log
from recsys.simulator.shop import Shop
from recsys.stages import Stages
from training.build_model import build_model
from training.report.transfer.budget import alone, count_parameters, matched
from training.report.transfer.health import failed_findings
from training.report.transfer.probe import GradientProbe
from training.report.transfer.shared_or_alone import measure_transfer
from training.report.transfer.transfer_pages import render_transfer, write_transfer
from training.report.transfer.transfer_report import TransferReport
from training.runs import Runs
from training.train import train


@pytest.fixture(scope="module")
def runs(shop_chain, config):
    return Runs(shop_chain, config)


@pytest.fixture(scope="module")
def report(shop_chain, config):
    return measure_transfer(shop_chain, config, [0, 1], replicates=100)


def test_parameters_are_counted_without_building_the_model(runs, config):
    ranker, tables = build_model(config, runs.state, None)
    built = sum(p.numel() for p in ranker.parameters())
    built += sum(tables.specs[n].size * tables.specs[n].dim for n in tables.specs)
    assert count_parameters(config, runs.state, config.tasks) == built


def test_the_models_alone_are_together_as_large_as_the_shared_one(report):
    total = sum(report.sizes.alone.values())
    assert abs(total - report.sizes.shared) < 0.1 * report.sizes.shared
    assert set(report.sizes.alone) == {"click", "purchase", "rating"}


def test_a_model_alone_has_every_feature_and_no_parent(runs, config):
    purchase = next(t for t in config.tasks if t.parent)
    total = count_parameters(config, runs.state, config.tasks)
    own, task = matched(config, runs.state, purchase, total // 3)
    assert own.tasks == config.tasks, "features are made from the config's tasks"
    assert own.features.item_id_dim < config.features.item_id_dim
    assert task.parent is None
    assert own.retrieval.weight == 0
    assert alone(purchase.model_copy(update={"weight": 0.0})).weight == 1
    with pytest.raises(ConfigError, match=r"no model of 'purchase' alone has its share of 10 parameters"):
        matched(config, runs.state, purchase, 10)


def test_a_task_alone_leans_on_no_other_and_counts(config):
    leaning = config.tasks[1].model_copy(update={"transfer_from": "click", "weight": 0.0})
    own = alone(leaning)
    assert (own.parent, own.transfer_from, own.weight) == (None, None, 1.0)


def test_watching_a_training_changes_no_weight(shop_chain, config):
    periods = {t.name: (0, 1) for t in config.tasks}
    config = config.model_copy(update={"model": config.model.model_copy(update={"dropout": 0.2})})
    probe = GradientProbe({}, every=2)
    watched = train(shop_chain, periods, config, None, 1, watchers=[probe])
    plain = train(shop_chain, periods, config, None, 1)
    assert len(probe.probes) > 2
    for name, value in plain.weights().items():
        np.testing.assert_array_equal(value, watched.weights()[name], err_msg=name)


def test_learning_one_head_leaves_the_others_out(shop_chain, config):
    click = config.tasks[0]
    trained = train(shop_chain, {"click": (0, 1)}, config, None, 1, tasks=[click])
    assert set(trained.ranker.heads.heads) == {"click"}
    assert set(trained.log.losses[0]) == {"click", "retrieval"}


def test_heads_are_evaluated_by_the_nights_rules(report, shop_chain):
    days = [s.day for s in shop_chain]
    click, rating = report.heads["click"], report.heads["rating"]
    assert (click.train_last, click.evaluated_on) == (days[-3], days[-1])
    assert (rating.train_last, rating.evaluated_on) == (days[-4], days[-2]), "its window is a day"
    assert click.train_positives < click.train_labels
    assert rating.train_positives is None


def test_the_retrieval_loss_is_among_the_gradients(report):
    assert report.losses == ("click", "purchase", "rating", "retrieval")
    pairs = {(p.first, p.second) for p in report.cosines}
    assert ("click", "retrieval") in pairs
    assert len(pairs) == 6
    assert len(report.affinities) == 16
    assert all(-1.001 <= p.mean <= 1.001 for p in report.cosines)


def test_values_are_by_seed_and_their_mean_is_the_effect(report):
    for head in report.heads.values():
        assert len(head.alone) == len(head.shared) == 2
        assert head.effect.a == pytest.approx(np.mean(head.alone))
        assert head.effect.b == pytest.approx(np.mean(head.shared))
        assert head.alone[0] != head.alone[1]
        assert head.effect.level == pytest.approx(1 - 0.05 / 3), "the heads share the error rate"


def test_the_page_stands_alone_and_the_files_agree(report, tmp_path):
    files = write_transfer(report, tmp_path / "out")
    assert [f.name for f in files] == ["report.html", "report.md", "report.json"]
    page, text = files[0].read_text(), files[1].read_text()
    assert len(page) < 1_000_000
    assert not re.search(r"https?://|<script|<link|src=", page)
    assert page.count("<svg") == 5
    assert TransferReport.model_validate_json(files[2].read_text()) == report
    for name, head in report.heads.items():
        assert f"{head.effect.b:.4f}" in text
        assert f"{head.effect.b:.4f}" in page
        assert f"| {name} | " in text
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({row.count("|") for row in table.splitlines()}) == 1, table


def test_a_trunk_without_gates_says_so(report):
    bare = report.model_copy(
        update={"health": report.health.model_copy(update={"gates": {}, "entropy": {}, "dead_experts": None})}
    )
    assert "has no gates" in render_transfer(bare, "transfer.html.j2")
    assert "expert 1" not in render_transfer(bare, "transfer.md.j2")


def test_one_seed_or_one_head_has_no_transfer(shop_chain, config):
    with pytest.raises(ConfigError, match=r"3 head\(s\), 1 seed\(s\)"):
        measure_transfer(shop_chain, config, [0])


@pytest.mark.parametrize(
    ("task", "labels", "said"),
    [
        ("rating", pl.lit(None), "no impression of .* has a label of 'rating'"),
        ("click", pl.lit(0), "labels of 'click' on .* are 0"),
        (
            "click",
            pl.col("request_id").rank("dense") % 2,
            "no list of .* has labels of 'click' that differ",
        ),
    ],
)
def test_a_head_that_cannot_be_evaluated_is_refused_before_training(
    shop_chain, config, monkeypatch, task, labels, said
):
    column = f"label_{task}"

    def hidden(impressions, *args):
        found, contradictions = make_labels(impressions, *args)
        other = impressions.select(labels.cast(pl.Float64)).to_series()
        changed = pl.when(pl.col(column).is_not_null()).then(other).alias(column)
        return found.with_columns(changed), contradictions

    monkeypatch.setattr("features.days.make_labels", hidden)
    monkeypatch.setattr(Runs, "train", lambda *_: pytest.fail("nothing may be trained"))
    with pytest.raises(DataError, match=f"{said}.*choose another --date, or leave the head out"):
        measure_transfer(Days.of(shop_chain, config), config, [0, 1])


CONFIG = """
[[task]]
name = "click"
feedback = "click"
head = "binary"
window = "1h"

[[task]]
name = "purchase"
feedback = "purchase"
head = "binary"
window = "2h"
parent = "click"

[features]
history_length = 3
text_dim = 4
item_id_dim = 8
user_id_dim = 8

[model]
tower_hidden = 16
embedding_dim = 8
attention_dim = 8
trunk = { hidden = [16, 8], num_experts = 2 }

[training]
batch_size = 512
"""


def test_the_command(shop_log, tmp_path, capsys):
    toml = tmp_path / "c.toml"
    toml.write_text(CONFIG)
    arguments = ["report", "transfer", "--config", str(toml), "--log", str(shop_log.root)]
    arguments += ["--out", str(tmp_path / "out"), "--seeds", "2", "--replicates", "100"]
    assert run([*arguments, "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(printed["heads"]) == {"click", "purchase"}
    assert printed["night"] == "2026-01-30"
    assert run([*arguments, "--date", "yesterday"]) == ConfigError.exit_code
    (tmp_path / "file").write_text("")
    capsys.readouterr()
    assert run([*arguments, "--out", str(tmp_path / "file")]) == DataError.exit_code
    said = capsys.readouterr().err
    assert "choose another --out" in said
    assert "trainings" not in said, "before any work"


OPPOSED_SHOP = {
    "users": 100, "items": 100, "days": 8, "requests_per_user_day": 6, "candidates": 60, "rank": 4,
    "drift": 0, "new_user_rate": 0, "new_item_rate": 0, "policy_taste": 0, "click_base": -1.5,
    "click_taste": 3, "click_user": 0.1, "click_appeal": 0.2, "click_noise": 0.1, "purchase_base": -0.5,
    "purchase_taste": 5, "purchase_user": 0.1, "purchase_appeal": 0.1, "purchase_noise": 0.1,
    "rated_clicks": 0, "rated_purchases": 0, "late_minutes": 0, "late_hours": 0, "refund_share": 0,
    "relatedness": 1, "contrary_users": 0.5,
}  # fmt: skip


RELATED_SHOP = {
    "users": 500, "items": 200, "days": 8, "requests_per_user_day": 1.2, "candidates": 100, "rank": 4,
    "drift": 0, "new_user_rate": 0, "new_item_rate": 0, "policy_taste": 0, "policy_popularity": 0,
    "click_base": -1.8, "click_taste": 1.5, "click_user": 0.6, "click_appeal": 1.2, "click_noise": 0.1,
    "purchase_base": -3.9, "purchase_taste": 0.7, "purchase_user": 0.1, "purchase_appeal": 0.7,
    "purchase_noise": 0.1, "rated_clicks": 0, "rated_purchases": 0, "late_minutes": 0, "late_hours": 0,
    "refund_share": 0, "relatedness": 1,
}  # fmt: skip


def _simulated(dials, example, root):
    """Run the report of docs/benchmarks/transfer.md: five seeds on a log of these dials."""
    log = InteractionLog(root / "log")
    shop = ShopDials.model_validate(dials)
    for _ in write_log(Shop.from_seed(shop, 1), log):
        pass
    config = load_config(Path(__file__).parents[4] / "examples" / example)
    chain = build_snapshots(log, shop.last_day, config, Stages(root / "stages"))
    return measure_transfer(chain, config, range(5), replicates=500)


def test_a_network_that_died_is_named(report):
    heads = report.heads
    assert failed_findings(heads) == []
    dead = heads["purchase"].model_copy(update={"alone": (0.5, 0.71)})
    (finding,) = failed_findings({**heads, "purchase": dead})
    assert finding.what.startswith("purchase alone: 1 of 2 seeds give every row one value")


@pytest.mark.slow
def test_the_same_config_helps_when_everybody_buys_what_they_click(tmp_path):
    report = _simulated({**OPPOSED_SHOP, "contrary_users": 0.0}, "transfer.toml", tmp_path)
    assert report.heads["purchase"].effect.verdict == "better"
    assert report.advice.action == "share"


@pytest.mark.slow
def test_users_who_buy_against_what_they_click_split_the_heads(tmp_path):
    report = _simulated(OPPOSED_SHOP, "transfer.toml", tmp_path)
    assert report.heads["purchase"].effect.verdict == "worse"
    assert report.advice.action == "split"


@pytest.mark.slow
def test_few_purchases_are_helped_by_many_clicks_of_the_same_taste(tmp_path):
    report = _simulated(RELATED_SHOP, "transfer_related.toml", tmp_path)
    click, purchase = report.heads["click"], report.heads["purchase"]
    assert purchase.train_positives < 0.1 * click.train_positives
    assert purchase.effect.verdict == "better"
    assert min(purchase.shared) > max(purchase.alone), "no seed that failed makes the difference"
    assert click.effect.verdict == "no evidence"
    assert report.advice.action == "share"
