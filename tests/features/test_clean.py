"""Cleaning: a bad row is quarantined with a counted reason, a bad file is a DataError, nothing vanishes."""

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.clean import REASON, clean
from recsys.errors import DataError
from recsys.schema import INSTANT, empty


@pytest.fixture
def check(frames):
    def run(table, frame, *, daily_cap=1000, known_keys=None, timezone="UTC"):
        known = pl.DataFrame() if known_keys is None else known_keys
        result = clean(
            table, frame, frames.day, timezone=timezone, where="LOG", daily_cap=daily_cap, known_keys=known
        )
        assert result.good.height + result.quarantine.height == frame.height
        assert sum(result.reasons.values()) == result.quarantine.height
        return result

    return run


def test_good_rows_pass_unchanged(check, frames):
    for table, frame in (
        ("impressions", frames.impressions({"context_device": "phone"}, {"position": 2})),
        ("feedback", frames.feedback({}, {"kind": "rating", "value": 4.5})),
        ("items", frames.items({"attribute_brand": "b"})),
        ("users", frames.users({"attribute_age": 30.0})),
    ):
        result = check(table, frame)
        assert result.reasons == {}
        assert result.good.equals(frame)


@pytest.mark.parametrize("table", ["impressions", "feedback", "items", "users"])
def test_an_empty_day_is_a_day(check, table):
    assert check(table, empty(table)).good.is_empty()


def test_a_log_from_before_sessions_were_merged_is_clean(check, frames):
    result = check("feedback", frames.feedback({}).drop("merged_from"))
    assert result.reasons == {}
    assert result.good["merged_from"].to_list() == [None]


def test_an_empty_impression_id_names_no_impression(check, frames):
    result = check("feedback", frames.feedback({"impression_id": ""}, {"impression_id": "r:1"}))
    assert result.reasons == {}
    assert result.good["impression_id"].to_list() == [None, "r:1"]


@pytest.mark.parametrize("column", ["shown_at", "item_id", "sampling_rate"])
def test_a_missing_column_is_the_files_fault(check, frames, column):
    with pytest.raises(DataError, match=rf"LOG: table impressions lacks .*{column}.*it has .*user_id"):
        check("impressions", frames.impressions({}).drop(column))


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("impressions", "position", "first"),
        ("items", "price", "cheap"),
        ("feedback", "value", "five"),
        ("impressions", "shown_at", "noon"),
    ],
)
def test_a_wrong_type_is_the_files_fault(check, frames, table, column, value):
    frame = getattr(frames, table)({}).with_columns(pl.lit(value).alias(column))
    with pytest.raises(DataError, match=f"table {table} has a column of the wrong type"):
        check(table, frame)


@pytest.mark.parametrize("column", ["position", "price"])
def test_a_number_is_never_truncated_to_fit(check, frames, column):
    table = "items" if column == "price" else "impressions"
    frame = getattr(frames, table)({}).with_columns(pl.lit(1.7).alias(column))
    with pytest.raises(DataError, match="wrong type"):
        check(table, frame)


@pytest.mark.parametrize(
    ("table", "row", "reason"),
    [
        ("feedback", {"kind": "rating", "value": float("nan")}, "value"),
        ("feedback", {"kind": "rating", "value": float("inf")}, "value"),
        ("feedback", {"kind": ""}, "kind"),
        ("feedback", {"user_id": None}, "user_id"),
        ("feedback", {"received_at": datetime(2026, 1, 5, 11, tzinfo=UTC)}, "received_after_it_occurred"),
        ("impressions", {"position": 0}, "position"),
        ("impressions", {"propensity": 0.0}, "propensity"),
        ("impressions", {"propensity": 1.5}, "propensity"),
        ("impressions", {"propensity": float("nan")}, "propensity"),
        ("impressions", {"sampling_rate": 0.0}, "sampling_rate"),
        ("impressions", {"shown_at": None}, "shown_at"),
        ("impressions", {"impression_id": ""}, "impression_id"),
        ("impressions", {"context_battery": float("inf")}, "context_battery"),
        ("items", {"price": -1}, "price"),
        ("items", {"item_id": ""}, "item_id"),
        ("users", {"attribute_age": float("nan")}, "attribute_age"),
    ],
)
def test_a_row_that_breaks_a_rule_is_quarantined(check, frames, table, row, reason):
    good = {f"{table[:-1] if table != 'feedback' else table}_id": "good"}
    result = check(table, getattr(frames, table)(row, good))
    assert result.good.height == 1
    assert list(result.reasons.values()) == [1]
    assert reason in next(iter(result.reasons))
    assert reason in result.quarantine[REASON][0]


@pytest.mark.parametrize("days", [-1, 1, 3650])
def test_an_instant_outside_its_partition(check, frames, at, days):
    frame = frames.impressions({"shown_at": at(days=days)}, {})
    assert check("impressions", frame).reasons == {"outside_partition": 1}
    received = frames.feedback(
        {"occurred_at": at(days=-30), "received_at": at()}, {"occurred_at": at(days=days)}
    )
    assert check("feedback", received).reasons == {"outside_partition": 1}


def test_the_partition_is_the_business_day(check, frames):
    late = datetime(2026, 1, 5, 20, tzinfo=UTC)  # already the 6th in Shanghai
    frame = frames.impressions({"shown_at": late})
    assert check("impressions", frame).reasons == {}
    assert check("impressions", frame, timezone="Asia/Shanghai").reasons == {"outside_partition": 1}


def test_a_duplicate_within_the_day_counts_once(check, frames):
    frame = frames.impressions({"impression_id": "a:1"}, {"impression_id": "a:1"}, {"impression_id": "b:1"})
    result = check("impressions", frame)
    assert result.reasons == {"duplicate": 1}
    assert result.good["impression_id"].to_list() == ["a:1", "b:1"]


def test_a_retry_after_midnight_counts_once(check, frames):
    result = check("feedback", frames.feedback({}, {}), known_keys=frames.feedback({}))
    assert result.reasons == {"duplicate": 1}
    assert result.good["feedback_id"].to_list() == ["f1"]


def test_a_broken_copy_does_not_take_the_good_one_with_it(check, frames, at):
    rows = ({"kind": ""}, {"occurred_at": at(days=1)}, {}, {"kind": "late copy"})
    frame = frames.feedback(*({"feedback_id": "same", **row} for row in rows))
    result = check("feedback", frame)
    assert result.good["kind"].to_list() == ["click"]
    assert result.reasons["duplicate"] == 1
    assert result.reasons["outside_partition"] == 1


def test_of_an_item_sent_twice_the_later_row_stands(check, frames):
    result = check("items", frames.items({"title": "old"}, {"title": "new"}))
    assert result.good["title"].to_list() == ["new"]
    assert result.reasons == {"duplicate": 1}


def test_what_one_user_does_over_the_cap(check, frames):
    rows = [{"user_id": "bot", "feedback_id": f"b{n}"} for n in range(5)] + [
        {"user_id": "u", "feedback_id": "u"}
    ]
    result = check("feedback", frames.feedback(*rows), daily_cap=3)
    assert result.reasons == {"over_daily_cap": 2}
    assert result.good["feedback_id"].to_list() == ["b0", "b1", "b2", "u"]


def test_bad_rows_do_not_use_up_the_cap(check, frames):
    rows = [{"kind": ""}] * 3 + [{}] * 2
    assert check("feedback", frames.feedback(*rows), daily_cap=2).good.height == 2


ROW = st.fixed_dictionaries(
    {
        "feedback_id": st.sampled_from(["a", "b", "c", ""]),
        "user_id": st.sampled_from(["u", "v", None]),
        "value": st.sampled_from([None, 1.0, float("nan"), float("inf")]),
        "occurred_at": st.sampled_from([datetime(2026, 1, day, 12, tzinfo=UTC) for day in (4, 5, 6)]),
    }
)


@given(rows=st.lists(ROW, max_size=12), cap=st.integers(1, 3))
def test_nothing_is_dropped_in_silence(frames, rows, cap):
    raw = frames.feedback(*rows)
    result = clean(
        "feedback",
        raw,
        frames.day,
        timezone="UTC",
        where="",
        daily_cap=cap,
        known_keys=frames.feedback({"feedback_id": "c"}, {"feedback_id": "c", "user_id": "v"}),
    )
    assert result.good.height + result.quarantine.height == raw.height
    assert sum(result.reasons.values()) == result.quarantine.height
    assert result.quarantine[REASON].null_count() == 0
    good = result.good
    assert good.select("user_id", "feedback_id").is_unique().all()
    assert set(good["feedback_id"]) <= {"a", "b"}
    assert good.group_by("user_id").len().filter(pl.col("len") > cap).is_empty()
    fine = raw.filter(
        pl.col("user_id").is_not_null(),
        pl.col("occurred_at") == frames.noon,
        pl.col("feedback_id").is_in(["a", "b"]),
    )
    fine = fine.filter(pl.col("value").is_null() | (pl.col("value") == 1.0))
    if cap == 3:
        assert set(good["feedback_id"]) == set(fine["feedback_id"]), "each good key is kept once"


def test_instants_in_another_unit_are_the_same_instants(check, frames):
    frame = frames.feedback({}).with_columns(
        pl.col("occurred_at", "received_at").cast(pl.Datetime("us", "UTC"))
    )
    assert check("feedback", frame).good.schema["received_at"] == INSTANT
