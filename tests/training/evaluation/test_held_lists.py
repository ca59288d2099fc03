"""Lists that are no requests: rows are scored as their list began, so that its own past tells nothing."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from features.build import build_snapshots
from recsys.log import InteractionLog
from recsys.metrics.table import pooled_metric
from recsys.stages import Stages
from training.baselines.fitted import fit_and_score
from training.data import held_scores
from training.evaluation.evaluate import score_rows
from training.evaluation.list_groups import LIST_GROUP
from training.runs import Runs
from training.train import train
from training.tune.model.bench import ModelBench

LAST = 5
LIST = ("user_id", "context_device")


# --- logs that differ in when a list's rows were shown


@pytest.fixture(scope="module")
def days_of(shop_log, shop_chain, config, tmp_path_factory):
    """Build the days of the shop's log after the impressions of some of them have been changed."""

    def build(change, first=0):
        root = tmp_path_factory.mktemp("changed")
        log = InteractionLog(root / "log")
        for table in ("impressions", "feedback", "users", "items"):
            for day in shop_log.days(table):
                rows = shop_log.read(table, day)
                if table == "impressions":
                    rows = rows.with_columns(request_id="impression_id")
                    rows = change(rows) if day >= shop_chain[first].day else rows
                log.write(table, day, rows, stem="simulated")
        return build_snapshots(log, shop_chain[LAST].day, config, Stages(root / "stages"))

    return build


@pytest.fixture(scope="module")
def days(days_of):
    """Each impression is a request of its own, as in logs without requests."""
    return days_of(lambda rows: rows)


@pytest.fixture(scope="module")
def at_once(days_of):
    """On the last two days all of a list was shown at once: rows scored as ever are the reference."""
    return days_of(lambda rows: rows.with_columns(pl.col("shown_at").min().over(LIST)), LAST - 1)


# --- whatever measures inside lists


@pytest.fixture(scope="module")
def evaluated(config):
    return {task.name: [LAST] for task in config.tasks}


@pytest.fixture(scope="module")
def rows(predictor, days, evaluated):
    return score_rows(predictor, days, evaluated)


def test_a_list_is_scored_as_if_all_of_it_had_been_shown_at_once(rows, predictor, at_once, evaluated, config):
    reference = score_rows(predictor, at_once, evaluated)
    assert rows["impression_id"].equals(reference["impression_id"])
    for task in config.tasks:
        live, held = rows[f"prediction_{task.name}"], rows[f"list_prediction_{task.name}"]
        np.testing.assert_allclose(held, reference[f"prediction_{task.name}"], rtol=1e-5)
        assert ((held / live - 1).abs() > 1e-3).mean() > 0.5, "most rows have a state of their own"


def test_on_a_lists_first_impression_held_and_live_are_one(rows, config):
    first = rows.filter(pl.col("shown_at") == pl.col("shown_at").min().over(LIST_GROUP))
    assert first[LIST_GROUP].n_unique() == rows[LIST_GROUP].drop_nulls().n_unique() > 10
    for task in config.tasks:
        assert (first[f"list_prediction_{task.name}"] == first[f"prediction_{task.name}"]).all()


def test_rows_of_requests_have_one_prediction(predictor, shop_chain, evaluated, config):
    rows = score_rows(predictor, shop_chain, evaluated)
    for task in config.tasks:
        assert (rows[f"list_prediction_{task.name}"] == rows[f"prediction_{task.name}"]).all()


def test_fitted_baselines_are_held_like_the_model(rows, predictor, days, at_once):
    """Labels and lists are the given rows'; the days decide what the baselines read of them."""
    found, wanted = (
        fit_and_score(predictor, of, rows, seed=0, lightgbm=False)["logistic_regression"].heads["click"]
        for of in (days, at_once)
    )
    assert found.values["list_auc"] == pytest.approx(wanted.values["list_auc"], abs=1e-9)
    assert found.values["auc"] != pytest.approx(wanted.values["auc"], abs=1e-3), "all rows are scored live"


def test_runs_predict_the_calibration_day_live_and_held(days, at_once, config):
    runs, reference = Runs(days, config), Runs(at_once, config)
    trained = runs.train(config, config.tasks, 0)
    scores, wanted = (of.score(trained, config, config.tasks)["click"] for of in (runs, reference))
    np.testing.assert_allclose(scores.known.list_prediction, wanted.known.prediction, rtol=1e-5)
    assert not np.allclose(scores.known.list_prediction, scores.known.prediction, rtol=1e-3)
    order = np.argsort(scores.raw.list_prediction)
    assert (np.diff(scores.evaluated.list_prediction[order]) > -1e-6).all(), "calibration keeps the order"
    reads = scores.known.read
    assert reads(pooled_metric("list_auc")) is scores.known.list_prediction
    assert reads(pooled_metric("auc")) is scores.known.prediction


def test_tune_measures_order_with_the_state_held(days, at_once, config):
    bench, reference = ModelBench(days, config), ModelBench(at_once, config)
    reference._known = bench._known  # labels have windows that begin when a row is shown
    prepared = bench.prepared
    trained = train(days, bench.plan.train, config, None, 1, prepared=prepared)
    found, wanted = (of.measure(trained.ranker, trained.tables).losses["click"] for of in (bench, reference))
    # One item twice in a list has one prediction, up to rounding: a tie that falls either way.
    assert found == pytest.approx(wanted, abs=2e-3)
    for period in bench._periods.values():
        object.__setattr__(period, "held", None)
    assert abs(bench.measure(trained.ranker, trained.tables).losses["click"] - wanted) > 3e-3


# --- equal items


@pytest.fixture(scope="module")
def chance(frames, config, tmp_path_factory):
    """Show 150 users 12 equal items each, five minutes apart; each is clicked with a chance of .3."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("chance")
    log, shown, clicks = InteractionLog(root / "log"), [], []
    for u in range(150):
        for n in range(12):
            at = frames.noon + timedelta(minutes=5 * n)
            row = {"impression_id": f"{u}-{n}:1", "user_id": f"u{u}", "item_id": f"i{n}", "shown_at": at}
            shown.append(row)
            if rng.random() < 0.3:
                of = {"impression_id": row["impression_id"], "user_id": f"u{u}", "item_id": f"i{n}"}
                clicks.append({**of, "feedback_id": f"{u}-{n}", "occurred_at": at + timedelta(seconds=1)})
    frames.write(log, "items", frames.items(*({"item_id": f"i{n}"} for n in range(12))))
    frames.write(log, "users", frames.users(*({"user_id": f"u{u}"} for u in range(150))))
    frames.write(log, "impressions", frames.impressions(*shown))
    frames.write(log, "feedback", frames.feedback(*clicks))
    return build_snapshots(log, frames.day, config, Stages(root / "stages"))


READS = {
    "counter": pl.col("live_click_count").cast(pl.Int64),
    "history": pl.col("history_stop").cast(pl.Int64) - pl.col("history_start").cast(pl.Int64),
}


@pytest.mark.parametrize("reads", READS.values(), ids=READS.keys())
def test_a_score_of_a_lists_own_past_is_worth_nothing_on_random_labels(chance, reads, tmp_path):
    """It adds what the user did so far to a taste for items that is no better than chance."""
    taste = np.random.default_rng(1).normal(size=12)

    def score(days):
        item = pl.col("item_id").str.slice(1).cast(pl.Int64)
        rows = days[0].table("examples").select(item=item, reads=reads)
        return {"click": rows["reads"].to_numpy() + taste[rows["item"].to_numpy()]}

    shown = chance[0].table("examples")
    lists = shown["user_id"].rank("dense").cast(pl.Int64)
    clicked = shown.join(chance[0].table("feedback"), on="impression_id", how="left", maintain_order="left")
    label = clicked["kind"].is_not_null().to_numpy()
    live = score(chance)
    held = held_scores(live, score, chance, 0, lists, tmp_path)
    mean, error = _auc_in_lists(label, held["click"], lists)
    assert abs(mean - 0.5) <= 3 * error
    mean, error = _auc_in_lists(label, live["click"], lists)
    assert mean < 0.5 - 3 * error, "each row's own state grows with the labels before it"


def _auc_in_lists(label, score, lists):
    """Give the mean AUC of the lists with both labels, and its standard error."""
    aucs = []
    for own in (np.flatnonzero(lists.to_numpy() == n) for n in lists.unique()):
        yes, no = score[own][label[own]], score[own][~label[own]]
        if yes.size and no.size:
            aucs.append(((yes[:, None] > no).mean() + (yes[:, None] >= no).mean()) / 2)
    assert len(aucs) > 100
    return np.mean(aucs), np.std(aucs) / len(aucs) ** 0.5
