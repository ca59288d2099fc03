"""Each finding is made by the fault it names, and a clean log has none."""

from datetime import date, timedelta

import polars as pl
import pytest

from features.profile.findings import CHECKS, CONFIG_CHECKS, find, quiet_offset
from recsys.config import parse_config

FIRST = date(2026, 1, 5)
RATING = pl.col("kind") == "rating"
THIRD = pl.int_range(pl.len()) % 3 == 0


def change(**columns):
    return lambda frame: frame.with_columns(**columns)


def instant(column, **shift):
    return (pl.col(column) + timedelta(**shift)).alias(column)


def null(dtype):
    return pl.lit(None, dtype)


HEAD = {"name": "click", "feedback": "click", "head": "binary", "window": "1d"}
CAPITALS = pl.col("user_id").str.to_uppercase()
FAULTS = {
    "organic_feedback": {"feedback": change(impression_id=null(pl.String))},
    "impression_not_found": {"feedback": change(impression_id=pl.lit("x") + pl.col("impression_id"))},
    "feedback_before_impression": {
        "feedback": change(occurred_at=pl.col("occurred_at") - timedelta(minutes=1))
    },
    "repeated_keys": {"feedback": lambda f: pl.concat([f, f.head(3)])},
    "one_user": {"impressions": change(user_id=pl.when(THIRD).then(pl.lit("bot")).otherwise("user_id"))},
    "one_item": {"impressions": change(item_id=pl.when(THIRD).then(pl.lit("i0")).otherwise("item_id"))},
    "cold_items": {"impressions": change(item_id=pl.col("impression_id"))},
    "sampled_negatives": {"impressions": change(sampled=pl.col("position") == 2)},
    "no_propensities": {"impressions": change(propensity=null(pl.Float64))},
    "one_position": {"impressions": change(position=pl.lit(1, pl.Int32))},
    "absent_columns": {"impressions": lambda f: f.drop("explored")},
    "unlisted_items": {"impressions": change(item_id=pl.lit("new") + pl.col("item_id"))},
    "wrong_partitions": {
        "impressions": change(shown_at=pl.col("shown_at") + timedelta(hours=14) * (pl.col("position") - 1))
    },
    "values_out_of_range": {"feedback": change(value=pl.col("value") * 2)},
    "missing_values": {"feedback": change(value=pl.when(pl.col("value") > 2).then("value"))},
    "missing_features": {"impressions": lambda f: f.drop("context_device")},
    "thin_heads": {"feedback": lambda f: f.filter(~RATING)},
    "no_feedback": {"feedback": lambda f: f.head(0)},
    "request_id_not_unique": {"impressions": change(request_id=pl.format("page-{}", "position"))},
    "spreadsheet_ids": {"impressions": change(item_id=pl.lit("1.23457E+15"))},
    "ids_spelt_twice": {"impressions": change(user_id=pl.when(THIRD).then(CAPITALS).otherwise("user_id"))},
}  # fmt: skip


def test_a_clean_log_has_no_findings(shop):
    shop.write()
    assert shop.profile().findings == ()


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_is_found(shop, code):
    shop.write(**FAULTS[code])
    found = {f.code: f for f in shop.profile().findings}
    assert code in found
    assert found[code].what
    assert found[code].remedy


def test_gaps_sparse_days_and_odd_volume(shop):
    shop.write()
    for table in ("impressions", "feedback"):
        shop.log.files(table, FIRST + timedelta(days=2))[0].unlink()
        (shop.log.root / table / f"date={FIRST + timedelta(days=2)}").rmdir()
    assert shop.codes() == {"gaps_in_days"}
    assert shop.profile().missing_days == (FIRST + timedelta(days=2),)
    late = FIRST + timedelta(days=90)
    moved = shop.log.read("impressions", FIRST).with_columns(instant("shown_at", days=90))
    shop.log.write(
        "impressions", late, moved.with_columns(impression_id=pl.lit("z") + pl.col("impression_id"))
    )
    assert "sparse_days" in shop.codes()


def test_a_few_rows_of_another_year(shop):
    shop.write()
    moved = shop.log.read("impressions", FIRST).head(2).with_columns(instant("shown_at", days=-800))
    moved = moved.with_columns(impression_id=pl.lit("z") + pl.col("impression_id"))
    shop.log.write("impressions", FIRST - timedelta(days=800), moved)
    found = {f.code: f for f in shop.profile().findings}["days_apart"]
    assert found.severity == "error"
    assert "800 days from the rest, which is of 2026-01-05 to 2026-01-10" in found.what


def test_a_config_without_a_position_bias_is_not_told_to_leave_it_out(shop):
    shop.write(**FAULTS["one_position"])
    config = parse_config({"task": [HEAD], "model": {"position_bias": False}}, "C")
    assert "one_position" not in {f.code for f in find(shop.profile(), config, "C")}
    told = {f.code for f in find(shop.profile(), parse_config({"task": [HEAD]}, "C"), "C")}
    assert "one_position" in told


def test_one_user_with_most_rows(shop):
    shop.write(impressions=change(user_id=pl.lit("bot")))
    assert {f.code: f.severity for f in shop.profile().findings}["one_user"] == "error"


@pytest.mark.parametrize("entity", ["user", "item"])
@pytest.mark.parametrize(("share", "told"), [(0.24, False), (0.26, True)])
def test_one_of_few_stands_out_by_more_than_its_share(shop, entity, share, told):
    shop.write(days=1)
    p = shop.profile()
    usual = p.per_user.model_copy(update={"entities": 20, "top_share": share})
    codes = {f.code for f in find(p.model_copy(update={f"per_{entity}": usual}), None, "")}
    assert (f"one_{entity}" in codes) is told


def test_a_day_of_odd_volume(shop):
    shop.write()
    day = FIRST + timedelta(days=3)
    shop.log.write("impressions", day, shop.log.read("impressions", day).head(40))
    shop.log.write("feedback", day, shop.log.read("feedback", day).head(10))
    assert shop.codes() == {"odd_volume"}


def test_every_impression_chosen(shop):
    shop.write(impressions=lambda f: f.filter(pl.int_range(pl.len()) % 3 == 0))
    assert "no_negatives" in shop.codes()


def test_the_last_event_long_after_the_last_day(shop):
    shop.write()
    day = FIRST + timedelta(days=5)
    done = shop.log.read("impressions", day)
    late = (
        pl.when(pl.int_range(pl.len()) == 0)
        .then(pl.col("shown_at") + timedelta(days=9))
        .otherwise("shown_at")
    )
    shop.log.write("impressions", day, done.with_columns(shown_at=late))
    assert {"late_events", "wrong_partitions"} <= shop.codes()


def test_hours_that_fit_another_time_zone(shop):
    def quiet_from_13(column):
        at = pl.col(column).dt
        return lambda frame: frame.filter((at.hour() < 13) | (at.minute() < 6))

    shop.write(impressions=quiet_from_13("shown_at"), feedback=quiet_from_13("occurred_at"))
    assert "time_zone" in shop.codes()


def test_the_quiet_hours_tell_the_zone():
    asleep_1_to_7_utc = tuple(1 if 1 <= hour < 7 else 50 for hour in range(24))
    assert quiet_offset(asleep_1_to_7_utc) == 0
    assert quiet_offset(tuple(asleep_1_to_7_utc[(h + 8) % 24] for h in range(24))) == 8
    assert quiet_offset(tuple(asleep_1_to_7_utc[(h - 5) % 24] for h in range(24))) == -5


def test_every_check_has_a_fault_here():
    elsewhere = {
        "_gaps",
        "_volume",
        "_all_positive",
        "_future",
        "_quiet_hours",
        "_apart",
        "_user_ids",
        "_spelt_items",
    }
    assert len(CHECKS) + len(CONFIG_CHECKS) == len(FAULTS) + len(elsewhere)
