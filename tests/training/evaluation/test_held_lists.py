"""Lists that are no requests: rows are scored as their list began, so that its own past tells nothing."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from features.build import build_snapshots
from recsys.log import InteractionLog
from recsys.stages import Stages
from training.data import held_scores
from training.evaluation.evaluate import score_rows
from training.evaluation.list_groups import LIST_GROUP

LAST = 5
LIST = ("user_id", "context_device")


# --- scored rows


@pytest.fixture(scope="module")
def rows_of(shop_log, shop_chain, config, predictor, tmp_path_factory):
    """Score the last day of the shop's log after its impressions have been changed."""

    def score(change):
        root = tmp_path_factory.mktemp("changed")
        log = InteractionLog(root / "log")
        for table in ("impressions", "feedback", "users", "items"):
            for day in shop_log.days(table):
                rows = shop_log.read(table, day)
                log.write(table, day, change(rows) if table == "impressions" else rows, stem="simulated")
        days = build_snapshots(log, shop_chain[LAST].day, config, Stages(root / "stages"))
        return score_rows(predictor, days, {task.name: [LAST] for task in config.tasks})

    return score


def _alone(rows):
    """Make each impression a request of its own, as logs without requests have them."""
    return rows.with_columns(request_id="impression_id")


@pytest.fixture(scope="module")
def lists(rows_of):
    return rows_of(_alone)


def test_a_list_is_scored_as_if_all_of_it_had_been_shown_at_once(rows_of, lists, config):
    """The reference is a log in which it was: there, rows are scored as ever, each at its own instant."""

    def at_once(rows):
        return _alone(rows).with_columns(pl.col("shown_at").min().over(LIST))

    reference = rows_of(at_once).select(
        "impression_id", pl.selectors.starts_with("prediction_").name.prefix("reference_")
    )
    found = lists.join(reference, on="impression_id", validate="1:1")
    assert found.height == lists.height > 100
    for task in config.tasks:
        held = found[f"list_prediction_{task.name}"].to_numpy()
        np.testing.assert_allclose(held, found[f"reference_prediction_{task.name}"].to_numpy(), rtol=1e-5)
        moved = np.abs(held / found[f"prediction_{task.name}"].to_numpy() - 1) > 1e-3
        assert moved.mean() > 0.5, "most rows have a state of their own"


def test_on_a_lists_first_impression_held_and_live_are_one(lists, config):
    first = lists.filter(pl.col("shown_at") == pl.col("shown_at").min().over(LIST_GROUP))
    assert first[LIST_GROUP].n_unique() == lists[LIST_GROUP].drop_nulls().n_unique() > 10
    for task in config.tasks:
        assert (first[f"list_prediction_{task.name}"] == first[f"prediction_{task.name}"]).all()


def test_rows_of_requests_have_one_prediction(rows_of, config):
    rows = rows_of(lambda rows: rows)
    for task in config.tasks:
        assert (rows[f"list_prediction_{task.name}"] == rows[f"prediction_{task.name}"]).all()


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
