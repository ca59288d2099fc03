"""Tiles: integers that add up to a direct computation over all days."""

from datetime import date, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features.build import build_snapshots
from features.tiles import add_to_lifetime, group_windows, measure_columns, tile, windowed
from recsys.stages import Stages
from recsys.tasks import TaskSpec

TASKS = [
    TaskSpec(name="click", feedback="click", head="binary", window="1h"),
    TaskSpec(name="stars", feedback="rating", head="regression", window="1d", space="observed"),
]


def test_a_tile_counts_impressions_feedback_and_half_stars(frames, at):
    shown = frames.impressions({}, {"item_id": "j"}, {"item_id": "only shown"})
    done = frames.feedback(
        {},
        {"occurred_at": at(hours=1)},
        {"kind": "rating", "value": 3.5},
        {"item_id": "organic"},
        {"kind": "view"},
    )
    rows = {r["item_id"]: r for r in tile(shown, done, "item_id", TASKS).iter_rows(named=True)}
    assert rows["i"] == {
        "item_id": "i",
        "impressions": 1,
        "click_count": 2,
        "stars_count": 1,
        "stars_halves": 7,
        "last_feedback_at": at(hours=1),
    }
    assert rows["organic"]["click_count"] == 1
    assert rows["organic"]["impressions"] == 0
    assert rows["only shown"]["click_count"] == 0
    assert rows["only shown"]["last_feedback_at"] is None


def test_what_a_session_did_counts_for_its_user_and_not_twice_for_the_item(frames):
    shown = frames.impressions()
    done = frames.feedback({"user_id": "s"}, {"user_id": "u", "merged_from": "s"})
    assert tile(shown, done, "item_id", TASKS)["click_count"].to_list() == [1]
    assert tile(shown, done, "user_id", TASKS)["click_count"].to_list() == [1, 1]


def test_sampled_negatives_were_never_shown(frames):
    shown = frames.impressions({}, {"sampled": True, "sampling_rate": 0.1})
    assert tile(shown, frames.feedback(), "item_id", TASKS)["impressions"].to_list() == [1]


def test_measures_are_integers_without_nulls(frames):
    one = tile(
        frames.impressions({}),
        frames.feedback({"item_id": "j", "kind": "rating", "value": None}),
        "item_id",
        TASKS,
    )
    for name in measure_columns(TASKS):
        assert one.schema[name] == pl.Int64
        assert one[name].null_count() == 0


def test_lifetime_is_the_sum_of_its_tiles(frames, at):
    days = [
        tile(
            frames.impressions({}, {"item_id": "j"}),
            frames.feedback({"occurred_at": at(hours=n)}),
            "item_id",
            TASKS,
        )
        for n in range(3)
    ]
    lifetime = None
    for day in days:
        lifetime = add_to_lifetime(lifetime, day, "item_id")
    assert lifetime["impressions"].to_list() == [3, 3]
    assert lifetime["click_count"].to_list() == [3, 0]
    assert lifetime["last_feedback_at"].to_list() == [at(hours=2), None]


def test_a_window_of_n_days_holds_the_last_n(frames):
    one = tile(frames.impressions({}), frames.feedback(), "item_id", TASKS)
    last = date(2026, 1, 31)
    tiles = {last - timedelta(days=n): one for n in range(40)}
    found = windowed(tiles, one, "item_id", last, (1, 7, 28), ["impressions"])
    assert found.select("impressions_1", "impressions_7", "impressions_28").row(0) == (1, 7, 28)
    ahead = windowed({last + timedelta(days=1): one}, one, "item_id", last, (7,), ["impressions"])
    assert ahead["impressions_7"].to_list() == [0]


def test_group_totals_are_given_to_each_member():
    items = pl.DataFrame(
        {"item_id": ["a", "b", "c", "d"], "category": ["x", "x", "y", None], "n": [1, 2, 4, 8]}
    )
    found = group_windows(items, "category", ["n"])
    assert found["by_category__n"].to_list() == [3, 3, 4, None]
    assert found["item_id"].to_list() == ["a", "b", "c", "d"]


def _direct(log, days, key, tasks):
    """Count everything of some days at once, from the raw log."""
    shown = (
        pl.concat([log.read("impressions", d) for d in days])
        .group_by(key)
        .agg(impressions=pl.len().cast(pl.Int64))
    )
    feedback = pl.concat([log.read("feedback", d) for d in days])
    counts = feedback.group_by(key).agg(
        *((pl.col("kind") == t.feedback).sum().cast(pl.Int64).alias(f"{t.name}_count") for t in tasks),
        rating_halves=(pl.col("value").filter(pl.col("kind") == "rating") * 2).sum().cast(pl.Int64),
    )
    joined = shown.join(counts, on=key, how="full", coalesce=True)
    return joined.with_columns(pl.exclude(key).fill_null(0)).sort(key)


@pytest.mark.parametrize(("entity", "key"), [("users", "user_id"), ("items", "item_id")])
@pytest.mark.parametrize("window", ["1", "7", "life"])
def test_a_snapshots_windows_equal_a_direct_computation(shop_log, shop_chain, config, entity, key, window):
    days = [s.day for s in shop_chain]
    chosen = days[-1:] if window == "1" else days
    measures = measure_columns(config.tasks)
    direct = _direct(shop_log, chosen, key, config.tasks).select(key, *measures)
    table = shop_chain[-1].table(entity)
    stored = table.select(key, *(pl.col(f"{m}_{window}").alias(m) for m in measures))
    assert_frame_equal(
        stored.filter(pl.col(key).is_in(direct[key].to_list())), direct, check_column_order=False
    )
    others = stored.filter(~pl.col(key).is_in(direct[key].to_list()))
    assert others.select(pl.sum_horizontal(measures)).to_series().sum() == 0


def test_monthly_periods_count_whole_months(frames, make_config, tmp_path, at):
    from recsys.log import InteractionLog

    log = InteractionLog(tmp_path / "log")
    shown = frames.impressions(
        *({"impression_id": f"r{n}:1", "shown_at": at(days=n)} for n in range(0, 70, 5))
    )
    frames.write(log, "impressions", shown)
    frames.write(log, "items", frames.items({}))
    config = make_config(period="P1M", feature=[])
    chain = build_snapshots(log, date(2026, 3, 10), config, Stages(tmp_path / "stages"))
    assert [s.day for s in chain] == [date(2026, 1, 31), date(2026, 2, 28), date(2026, 3, 10)]
    counts = [s.table("items").filter(pl.col("item_id") == "i").row(0, named=True) for s in chain]
    assert [c["impressions_1"] for c in counts] == [6, 5, 2], "a month is the smallest unit"
    assert [c["impressions_life"] for c in counts] == [6, 11, 13]
