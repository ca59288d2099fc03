"""The log on disk: valid tables, right partitions, the rates that the dials promise."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from recsys.log import InteractionLog, business_day
from recsys.schema import KEYS, PARTITION_INSTANT, TABLES, with_free_columns
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import Served, simulate_day, write_log
from recsys.simulator.logging_policy import Slates
from recsys.simulator.shop import Shop

WRITTEN = [name for name in TABLES if name != "exposures"]


@pytest.mark.parametrize("table", WRITTEN)
def test_every_row_is_valid(simulated, table):
    frame = simulated.table(table)
    schema = with_free_columns(table, dict(zip(frame.columns, frame.dtypes, strict=True)))
    kept, failures = schema.filter(frame, cast=True)
    assert failures.counts() == {}
    assert kept.height == frame.height > 0
    assert set(kept.columns) == set(frame.columns)


@pytest.mark.parametrize("table", [name for name in WRITTEN if name != "items"])
def test_keys_are_unique(simulated, table):
    frame = simulated.table(table)
    assert frame.select(KEYS[table]).is_unique().all()


@pytest.mark.parametrize("table", ["requests", "impressions", "feedback"])
def test_rows_are_filed_under_their_day(simulated, table):
    for day in simulated.log.days(table):
        days = (
            simulated.log.read(table, day).select(business_day(PARTITION_INSTANT[table], "UTC")).to_series()
        )
        assert days.unique().to_list() == [day]


def test_calendar(simulated):
    dials = simulated.shop.dials
    days = [dials.first_day + timedelta(days=n) for n in range(dials.days)]
    for table in ("requests", "impressions", "users", "items"):
        assert simulated.log.days(table) == days
    # What the last days lead to is received up to four days later.
    late = [day for day in simulated.log.days("feedback") if day > dials.last_day]
    assert 1 <= len(late) <= 4


def test_rates_are_what_the_dials_promise(simulated):
    counts = simulated.counts
    assert 0.08 <= counts.click_rate <= 0.15
    assert 0.05 <= counts.purchase_rate <= 0.10
    dials = simulated.shop.dials
    expected = dials.requests_per_day * dials.days * dials.page_size
    assert counts.rows["impressions"] == pytest.approx(expected, rel=0.03)
    assert 0 < counts.rows["refund"] < 0.1 * counts.rows["purchase"]
    assert counts.rows["rating"] > counts.rows["purchase"]


def test_feedback_follows_its_impression(simulated):
    shown = simulated.table("impressions").select("impression_id", "shown_at", "user_id", "item_id")
    feedback = simulated.table("feedback").join(shown, on=["impression_id", "user_id", "item_id"], how="left")
    assert feedback["shown_at"].null_count() == 0
    delay = feedback.with_columns(delay=pl.col("occurred_at") - pl.col("shown_at"))
    by_kind = delay.group_by("kind").agg(low=pl.col("delay").min(), high=pl.col("delay").max())
    ranges = {kind: (low, high) for kind, low, high in by_kind.iter_rows()}
    assert min(low for low, _ in ranges.values()) >= timedelta(0)
    assert ranges["click"][1] <= timedelta(minutes=10)
    assert ranges["purchase"][1] <= timedelta(minutes=90)
    ratings = delay.filter(pl.col("kind") == "rating")
    in_a_day = (ratings["delay"] <= timedelta(days=1)).mean()
    assert 0.9 < in_a_day < 1.0


def test_purchases_need_a_click_and_refunds_a_purchase(simulated):
    feedback = simulated.table("feedback")
    of = {
        kind: set(feedback.filter(pl.col("kind") == kind)["impression_id"])
        for kind in ("click", "purchase", "refund")
    }
    assert of["refund"] < of["purchase"] < of["click"]


def test_few_receipts_are_late(simulated):
    feedback = simulated.table("feedback")
    late = feedback["received_at"] - feedback["occurred_at"]
    assert 0.01 < (late > timedelta(minutes=5)).mean() < 0.05
    assert 0 < (late > timedelta(hours=1)).mean() < 0.01


def test_ratings_are_half_stars(simulated):
    stars = simulated.table("feedback").filter(pl.col("kind") == "rating")["value"]
    assert stars.is_between(1.0, 5.0).all()
    assert ((stars * 2) % 1 == 0).all()
    assert 0.4 < stars.std() < 1.2


def test_items_are_shown_only_while_available(simulated):
    items = simulated.table("items").unique("item_id", keep="last", maintain_order=True)
    shown = simulated.table("impressions").join(items, on="item_id", how="left")
    assert (shown["shown_at"] >= shown["available_from"]).all()
    assert (shown["shown_at"] < shown["available_until"]).drop_nulls().all()


def test_catalogue_turns_over_and_keeps_its_size(simulated):
    shop = simulated.shop
    for day in (0, 1, 10, shop.dials.days, shop.horizon - 1):
        assert len(shop.items.available(day)) == shop.dials.items
    new = simulated.log.read("items", shop.dials.last_day).filter(pl.col("available_until").is_null()).height
    assert 0.02 <= new / shop.dials.items <= 0.05


def test_popularity_is_zipf_with_a_shared_head(simulated):
    counts = np.sort(simulated.table("impressions").group_by("item_id").len()["len"].to_numpy())[::-1]
    rank = np.arange(1, len(counts) + 1)
    slope = -np.polyfit(np.log(rank), np.log(counts), 1)[0]
    assert 0.8 < slope < 1.4
    assert counts[:50].sum() / counts.sum() < 0.2


def test_candidates_are_logged_for_a_share_of_requests(simulated):
    requests = simulated.table("requests")
    logged = requests.filter(pl.col("candidates").is_not_null())
    assert logged.height / requests.height == pytest.approx(simulated.shop.dials.candidates_logged, rel=0.3)
    assert (logged["candidates"].list.len() == logged["candidate_sources"].list.len()).all()
    assert (logged["candidates"].list.n_unique() == logged["candidates"].list.len()).all()
    shown = simulated.table("impressions").join(logged, on="request_id", how="semi")
    sets = shown.join(logged.select("request_id", "candidates"), on="request_id")
    assert sets.select(pl.col("candidates").list.contains(pl.col("item_id"))).to_series().all()


def test_truth_explains_the_log(simulated):
    truth = pl.read_parquet(simulated.log.root / "truth/date=*/*.parquet", hive_partitioning=False)
    shown = simulated.table("impressions")
    assert truth["impression_id"].to_list() == shown["impression_id"].to_list()
    assert (truth["p_purchase"] < truth["p_click"]).all()
    assert truth["p_click"].sum() == pytest.approx(simulated.counts.rows["click"], rel=0.02)
    assert truth["p_purchase"].sum() == pytest.approx(simulated.counts.rows["purchase"], rel=0.1)
    again = simulated.shop.true_predictions(shown)
    for column in ("p_click", "p_purchase", "expected_rating"):
        np.testing.assert_allclose(again[column], truth[column], rtol=1e-9)


def test_truth_names_the_mean_of_ratings(simulated):
    ratings = simulated.table("feedback").filter(pl.col("kind") == "rating")
    shown = simulated.table("impressions").join(ratings.select("impression_id", "value"), on="impression_id")
    expected = simulated.shop.true_predictions(shown)["expected_rating"]
    error = shown["value"] - expected
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error))


def test_same_seed_same_log_other_seed_other_log(tmp_path):
    dials = ShopDials(users=60, items=100, days=2)
    frames = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        log = InteractionLog(tmp_path / name)
        list(write_log(Shop.from_seed(dials, seed), log))
        frames.append(
            {path.relative_to(log.root): path.read_bytes() for path in sorted(log.root.rglob("*.parquet"))}
        )
    assert frames[0] == frames[1]
    assert frames[0] != frames[2]


def test_a_day_is_the_same_whatever_else_is_simulated():
    dials = ShopDials(users=60, items=100, days=3)
    near, far = Shop.from_seed(dials, 4, extra_days=0), Shop.from_seed(dials, 4, extra_days=20)
    day = dials.last_day
    for name in ("requests", "impressions", "feedback", "truth"):
        assert getattr(simulate_day(near, day), name).equals(getattr(simulate_day(far, day), name))


def test_another_policy_answers_the_same_requests(small):
    day = small.dials.first_day
    items = np.arange(3)

    def serve(requests):
        pages = np.tile(items, (requests.height, 1))
        explored = np.arange(requests.height) == 0
        return Served(
            slates=Slates(items=pages, propensity=np.full(pages.shape, 0.5)),
            explored=explored,
            policy="other",
            policy_parameters="{}",
            bundle_version="v1",
        )

    own, served = simulate_day(small, day), simulate_day(small, day, serve)
    asked = ["request_id", "user_id", "requested_at", "context_device"]
    assert served.requests.select(asked).equals(own.requests.select(asked))
    assert served.requests["bundle_version"].unique().to_list() == ["v1"]
    assert served.requests["candidates"].is_null().all()
    shown = served.impressions.filter(pl.col("request_id") == served.requests["request_id"][0])
    assert shown["item_id"].to_list() == small.item_ids(items)
    assert served.impressions["explored"].sum() == items.size == shown["explored"].sum()
    assert served.truth["p_click"].equals(small.true_predictions(served.impressions)["p_click"])
