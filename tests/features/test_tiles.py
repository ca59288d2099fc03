"""Tiles: integers that add up to a direct computation over all days."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from features.build import build_snapshots
from features.tiles import (
    add_tiles,
    group_windows,
    in_windows,
    leaving_days,
    measure_columns,
    roll_windows,
    tile,
)
from recsys.schema import INSTANT
from recsys.stages import Stages
from recsys.tasks import TaskSpec

DAY = date(2026, 1, 5)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
TASKS = [
    TaskSpec(name="click", feedback="click", head="binary", window="1h"),
    TaskSpec(name="stars", feedback="rating", head="regression", window="1d", space="observed"),
]

BUY = TaskSpec(name="buy", feedback="purchase", reversal="refund", head="binary", window="1h")


def test_a_tile_counts_impressions_feedback_and_half_stars(frames, at):
    shown = frames.impressions({}, {"item_id": "j"}, {"item_id": "only shown"})
    done = frames.feedback(
        {},
        {"occurred_at": at(hours=1)},
        {"kind": "rating", "value": 3.5},
        {"item_id": "organic"},
        {"kind": "view"},
    )
    rows = {r["item_id"]: r for r in tile(shown, done, ["item_id"], TASKS).iter_rows(named=True)}
    assert rows["i"] == {
        "item_id": "i",
        "impressions": 1,
        "click_count": 2,
        "click_shown": 0,
        "stars_count": 1,
        "stars_steps": 7,
        "last_feedback_at": at(hours=1),
    }
    assert rows["organic"]["click_count"] == 1
    assert rows["organic"]["impressions"] == 0
    assert rows["only shown"]["click_count"] == 0
    assert rows["only shown"]["last_feedback_at"] is None


def test_what_a_session_did_counts_for_its_user_and_not_twice_for_the_item(frames):
    shown = frames.impressions()
    done = frames.feedback({"user_id": "s"}, {"user_id": "u", "merged_from": "s"})
    assert tile(shown, done, ["item_id"], TASKS)["click_count"].to_list() == [1]
    assert tile(shown, done, ["user_id"], TASKS)["click_count"].to_list() == [1, 1]


def test_sampled_negatives_were_never_shown(frames):
    shown = frames.impressions({}, {"sampled": True, "sampling_rate": 0.1})
    assert tile(shown, frames.feedback(), ["item_id"], TASKS)["impressions"].to_list() == [1]


def test_measures_are_integers_without_nulls(frames):
    one = tile(
        frames.impressions({}),
        frames.feedback({"item_id": "j", "kind": "rating", "value": None}),
        ["item_id"],
        TASKS,
    )
    for name in measure_columns(TASKS):
        assert one.schema[name] == pl.Int64
        assert one[name].null_count() == 0


def test_feedback_that_is_taken_back_counts_against_the_day_of_its_reversal(frames):
    kinds = ({"kind": "purchase"}, {"kind": "purchase", "item_id": "j"}, {"kind": "refund", "item_id": "j"})
    done = frames.feedback(*kinds, {"kind": "refund", "item_id": "bought long ago"})
    found = tile(frames.impressions({}), done, ["item_id"], [BUY])
    assert dict(found.select("item_id", "buy_count").iter_rows()) == {"i": 1, "j": 0, "bought long ago": -1}


def test_what_a_user_found_some_other_way_is_counted_and_is_no_part_of_a_rate(frames):
    shown = frames.impressions({}, {"impression_id": "r2:1", "user_id": "v", "item_id": "j"})
    done = frames.feedback(
        {"impression_id": "r:1"},
        {},  # of an item that was shown that very day: it names no impression, and is no label either
        {"item_id": "never shown"},
        {"impression_id": "r2:1", "user_id": "v", "item_id": "j"},
        {"impression_id": "yesterday:1", "item_id": "late"},
    )
    found = tile(shown, done, ["item_id"], TASKS).select(
        "item_id", "impressions", "click_count", "click_shown"
    )
    assert {row[0]: row[1:] for row in found.iter_rows()} == {
        "i": (1, 2, 1),
        "j": (1, 1, 1),
        "late": (0, 1, 1),
        "never shown": (0, 1, 0),
    }
    by_user = tile(shown, done, ["user_id"], TASKS).select("user_id", "click_count", "click_shown")
    assert by_user.rows() == [("u", 4, 2), ("v", 1, 1)]


def test_a_rate_is_net_of_what_was_taken_back_by_name_of_the_impression(frames):
    done = frames.feedback(
        *({"kind": "purchase", "impression_id": "r:1", "item_id": item} for item in "ijk"),
        *({"kind": "purchase", "item_id": item} for item in "jl"),
        {"kind": "refund", "impression_id": "r:1", "item_id": "j"},
        {"kind": "refund", "item_id": "k"},  # names no impression: no label is undone by it either
        {"kind": "refund", "item_id": "l"},
    )
    found = tile(frames.impressions({}), done, ["item_id"], [BUY]).select("item_id", "buy_count", "buy_shown")
    assert found.rows() == [("i", 1, 1), ("j", 1, 0), ("k", 0, 1), ("l", 0, 0)]


def test_an_organic_rate_is_of_feedback_that_names_no_impression(frames):
    done = frames.feedback(
        *({"kind": "view", "feedback_id": f"v{n}"} for n in range(3)),
        {"kind": "view", "impression_id": "r:1"},
        {},
        {"impression_id": "r:1"},
        {"kind": "rating", "value": 4.0},
        {"kind": "view", "user_id": "u", "merged_from": "s", "feedback_id": "copy of a view"},
        {"user_id": "u", "merged_from": "s", "feedback_id": "copy of a click"},
    )
    shown = frames.impressions({})
    found = tile(shown, done, ["user_id"], TASKS, "view")
    assert set(measure_columns(TASKS, "view")) - set(measure_columns(TASKS)) == {
        "click_organic",
        "organic_base",
    }
    assert found.select("click_count", "click_shown", "click_organic", "organic_base").row(0) == (3, 1, 1, 3)
    of_clicks = tile(shown, done, ["user_id"], TASKS, "click")
    assert "click_organic" not in of_clicks.columns, "a kind is no share of itself"
    assert of_clicks["organic_base"].to_list() == [1]


def test_what_a_session_saw_was_not_shown_to_its_user(frames):
    shown = frames.impressions({"user_id": "s"})
    mine = frames.feedback(
        {"user_id": "s", "impression_id": "r:1"}, {"user_id": "u", "merged_from": "s", "feedback_id": "copy"}
    )
    found = tile(shown, mine, ["user_id"], TASKS).select(
        "user_id", "impressions", "click_count", "click_shown"
    )
    assert found.rows() == [("s", 1, 1, 1), ("u", 0, 1, 0)]


def test_tiles_of_parts_add_up_to_the_tile_of_all(frames, at):
    shown = frames.impressions({}, {"user_id": "v"}, {"user_id": "v", "item_id": "j"})
    done = frames.feedback({}, {"user_id": "v", "occurred_at": at(hours=1)})
    parts = [
        tile(*(f.filter(pl.col("user_id") == user) for f in (shown, done)), ["item_id"], TASKS)
        for user in ("u", "v", "nobody")
    ]
    assert_frame_equal(add_tiles(parts, ["item_id"]), tile(shown, done, ["item_id"], TASKS))


LENGTHS = (1, 2, 7)


@given(
    counts=st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(-2, 5)), min_size=1, max_size=14),
    gaps=st.lists(st.integers(1, 4), min_size=14, max_size=14),
)
def test_rolled_windows_are_the_sums_of_the_tiles_inside(counts, gaps):
    """Window by window, day by day, with days missing: what is added leaves exactly when it should."""
    days = [DAY + timedelta(days=sum(gaps[:n])) for n in range(len(counts))]
    tiles: dict[date, pl.DataFrame] = {}
    rolled = few = None
    for day, count in zip(days, counts, strict=True):
        one = pl.DataFrame(
            {
                "key": pl.Series(sorted(count), dtype=pl.String),
                "n": pl.Series([count[k] for k in sorted(count)], dtype=pl.Int64),
                "last_feedback_at": pl.Series([NOON] * len(count), dtype=INSTANT),
            }
        )
        leaving = leaving_days([*tiles], day, LENGTHS)
        gone = {w: [tiles[d] for d in left] for w, left in leaving.items()}
        rolled = roll_windows(rolled, one, gone, ["key"], ["n"])
        few = in_windows(roll_windows(few, one, gone, ["key"], ["n"]), LENGTHS, ["n"])
        tiles[day] = one
        for row in rolled.iter_rows(named=True):
            for window in LENGTHS:
                inside = [t for d, t in tiles.items() if (day - d).days < window]
                total = sum(n for t in inside for k, n, _ in t.iter_rows() if k == row["key"])
                assert row[f"n_{window}"] == total
            assert row["n_life"] == sum(c.get(row["key"], 0) for c in counts[: len(tiles)])
        assert rolled["key"].to_list() == sorted({k for t in tiles.values() for k in t["key"]})
        windows = ["key", *(f"n_{window}" for window in LENGTHS)]
        kept = rolled.select(windows).filter(pl.any_horizontal(pl.col(windows[1:]) != 0))
        assert_frame_equal(few.select(windows), kept)


def test_group_totals_are_given_to_each_member():
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "category": ["x", "x", "y", None],
            "n": [1, 2, 4, 8],
            "hours_since_feedback": [5, None, None, 1],
        }
    )
    found = group_windows(items, "category", ["n"])
    assert found["by_category__n"].to_list() == [3, 3, 4, None]
    assert found["by_category__hours_since_feedback"].to_list() == [5, 5, None, None]
    assert found["item_id"].to_list() == ["a", "b", "c", "d"]


def _direct(log, days, key, tasks):
    """Count everything of some days at once, from the raw log."""
    shown = (
        pl.concat([log.read("impressions", d) for d in days])
        .group_by(key)
        .agg(impressions=pl.len().cast(pl.Int64))
    )
    feedback = pl.concat([log.read("feedback", d) for d in days])
    kinds = {t.name: pl.col("kind") == t.feedback for t in tasks}
    undone = {t.name: pl.col("kind") == (t.reversal or "") for t in tasks}

    def net(task, rows):
        done, back = ((rows & among[task.name]).sum().cast(pl.Int64) for among in (kinds, undone))
        return done - back

    named = pl.col("impression_id").is_not_null()
    counts = feedback.group_by(key).agg(
        *(net(t, pl.lit(value=True)).alias(f"{t.name}_count") for t in tasks),
        *(net(t, named).alias(f"{t.name}_shown") for t in tasks if t.kind.probability),
        rating_steps=(pl.col("value").filter(pl.col("kind") == "rating") * 2).sum().cast(pl.Int64),
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


def test_what_a_user_did_with_an_item_equals_a_direct_computation(shop_log, make_config, tmp_path):
    config = make_config(features={"cross_user_by": ["item_id"], "window_days": [2, 1]})
    chain = build_snapshots(shop_log, date(2026, 1, 30), config, Stages(tmp_path))
    key, measures = ["user_id", "item_id"], measure_columns(config.tasks)
    direct = _direct(shop_log, [s.day for s in chain[-2:]], key, config.tasks).select(*key, *measures)
    table = chain[-1].table("cross_item_id")
    stored = table.select(*key, *(pl.col(f"{m}_2").alias(m) for m in measures))
    assert direct["impressions"].max() > 1, "items come again"
    kept = direct.join(table, on=key, how="semi")
    assert_frame_equal(
        stored.filter(pl.any_horizontal(pl.col(measures) != 0)), kept, check_column_order=False
    )
    gone = direct.join(table, on=key, how="anti").select(pl.sum_horizontal(pl.col(measures).abs()))
    assert gone.to_series().sum() == 0
    earlier = pl.concat([s.table("cross_item_id") for s in chain[:-2]]).join(direct, on=key, how="anti")
    assert earlier.height, "others came before"
    assert table.join(earlier, on=key, how="semi").is_empty(), "and are no longer kept"


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
