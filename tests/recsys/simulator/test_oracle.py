"""The oracles: the truth is best, the informed one lies below it and above chance, its estimates right."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import simulate_day
from recsys.simulator.oracle import (
    add_labels,
    estimate_users,
    informed_predictions,
    known_list_auc,
    oracle_report,
    read_labelled,
)
from recsys.simulator.shop import Shop


@pytest.fixture(scope="module")
def split(simulated):
    last = simulated.shop.dials.last_day
    cut = last - timedelta(days=5)
    history = read_labelled(simulated.log, simulated.shop.dials.first_day, cut)
    rows = read_labelled(simulated.log, cut + timedelta(days=1), last)
    return history, rows


def test_best_above_informed_above_popularity(simulated, split):
    history, rows = split
    report = oracle_report(simulated.shop, history, rows)
    assert 0.68 <= report.click_best_list_auc <= 0.80
    assert 0.68 <= report.purchase_best_list_auc <= 0.86
    assert 0.60 <= report.click_informed_list_auc <= report.click_best_list_auc - 0.04
    assert 0.60 <= report.purchase_informed_list_auc <= report.purchase_best_list_auc - 0.02
    assert report.rating_noise_rmse < report.rating_informed_rmse - 0.05
    assert report.rating_informed_rmse < rows["rating"].std()


def test_appeal_is_worth_something_inside_a_list(simulated, split):
    history, rows = split
    figures = []
    for knows_appeal in (False, True):
        estimates = estimate_users(simulated.shop, history, knows_appeal=knows_appeal)
        found = informed_predictions(simulated.shop, estimates, rows)
        figures.append([known_list_auc(rows, task, found[task]) for task in ("click", "purchase")])
    (click, purchase), (click_known, purchase_known) = figures
    assert click_known > click + 0.01
    assert purchase_known > purchase


def test_feedback_is_the_users_who_gave_it(frames):
    shown = frames.impressions(*[{"impression_id": "x", "user_id": user} for user in "uv"])
    done = frames.feedback({"impression_id": "x", "user_id": "v"})
    assert add_labels(shown, done)["click"].to_list() == [0.0, 1.0]


def test_labels_hold_only_what_was_received(simulated):
    first = simulated.shop.dials.first_day
    one, two = (
        read_labelled(simulated.log, first, first),
        read_labelled(simulated.log, first, first + timedelta(days=1)),
    )
    same_day = two.head(one.height)
    assert same_day["impression_id"].equals(one["impression_id"])
    assert same_day["rating"].count() > one["rating"].count() > 0
    assert (same_day["click"] >= one["click"]).all()


def test_no_impressions_is_an_error(simulated, tmp_path):
    with pytest.raises(DataError, match="no impressions"):
        read_labelled(InteractionLog(tmp_path), simulated.shop.dials.first_day, simulated.shop.dials.last_day)


def test_users_without_history_get_the_prior(simulated, split):
    history, rows = split
    known = history.filter(pl.col("user_id") != "u000003")
    estimates = estimate_users(simulated.shop, known, knows_appeal=False)
    np.testing.assert_array_equal(estimates.coefficients[3], 0.0)
    mine = rows.filter(pl.col("user_id") == "u000003")
    guess = informed_predictions(simulated.shop, estimates, mine)
    assert guess["click"].n_unique() <= 1


def test_null_labels_leave_their_rows_out(simulated, split):
    history, rows = split
    half = pl.int_range(pl.len()) % 2 == 0
    nulled = rows.with_columns(click=pl.when(half).then("click"))
    full, part = (oracle_report(simulated.shop, history, r) for r in (rows, nulled))
    assert full.purchase_best_list_auc == part.purchase_best_list_auc
    assert full.click_best_list_auc != part.click_best_list_auc
    assert full.click_best_list_auc == pytest.approx(part.click_best_list_auc, abs=0.02)


def test_estimates_approach_the_truth_with_history(simulated, split):
    """Users who saw more are estimated better, and better than the prior is."""
    history, _ = split
    shop = simulated.shop
    estimates = estimate_users(shop, history, knows_appeal=False)
    users = np.arange(shop.dials.users)
    truth = shop.users.taste_on(users, 15)
    error = ((estimates.coefficients[users, :16] - truth) ** 2).mean(axis=1)
    seen = np.bincount(shop.user_numbers(history["user_id"]), minlength=len(users))[users]
    heavy, light = seen > np.quantile(seen, 0.8), seen < np.quantile(seen, 0.2)
    prior = (truth**2).mean()
    assert error[heavy].mean() < error[light].mean() < 0.85 * prior
    assert error[heavy].mean() < 0.65 * prior


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_default_dials(seed):
    dials = ShopDials()
    shop = Shop.from_seed(dials, seed)
    days = [simulate_day(shop, dials.date_of(number)) for number in range(dials.days)]
    feedback = pl.concat([day.feedback for day in days])
    past = feedback.filter(pl.col("received_at").dt.date() < dials.last_day)
    history = add_labels(pl.concat([day.impressions for day in days[:-1]]), past)
    rows = add_labels(days[-1].impressions, days[-1].feedback)
    report = oracle_report(shop, history, rows)
    assert 0.68 <= report.click_best_list_auc <= 0.80
    assert 0.68 <= report.purchase_best_list_auc <= 0.86
    assert 0.60 <= report.click_informed_list_auc <= 0.70
    assert 0.08 <= history["click"].mean() <= 0.15
    assert 0.05 <= history["purchase"].sum() / history["click"].sum() <= 0.10
