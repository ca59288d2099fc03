"""Profiles: what is counted of a day, by hand."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from features.build import build_snapshots
from features.validation.measure import bin_of, matured_labels, profile_column, profile_day
from features.validation.tables import read_day
from recsys.log import InteractionLog
from recsys.stages import Stages
from recsys.tasks import TaskSpec


def test_numbers_fall_into_fixed_bins():
    values = pl.DataFrame({"v": [1.0 + i / 2 for i in range(9)] + [0.0, -1.0, 1e300, 1e-300]})
    bins = values.select(bin_of("v")).to_series().to_list()
    assert len({*bins[:9]}) == 9, "half stars must be told apart"
    assert bins[9] == 0
    assert bins[10] == -bins[0]
    assert bins[11] > bins[8] > bins[0] > bins[12] > 0


def test_columns_by_hand():
    numbers = profile_column(pl.Series("n", [2.0, None, 2.0, 200.0]), 3.0)
    assert (numbers.rows, numbers.nulls, numbers.kind) == (4, 1, "numbers")
    assert (numbers.low, numbers.high, sorted(numbers.bins.values())) == (2.0, 200.0, [1, 2])
    text = profile_column(pl.Series("t", ["a", "b", "a", None]), 3.0)
    assert (text.categories, text.values, text.kind) == ({"a": 2, "b": 1}, 3, "text")
    lists = profile_column(pl.Series("l", [["a", "b"], ["a"], None, []]), 3.0)
    assert (lists.categories, lists.values, lists.nulls) == ({"a": 2, "b": 1}, 3, 1)
    assert profile_column(pl.Series("e", [None, None], dtype=pl.String), 2.0).kind == "nothing"


@pytest.fixture
def days(frames, at, make_config, tmp_path):
    """Profile two days made by hand."""
    log = InteractionLog(tmp_path / "log")
    config = make_config(feature=[{"name": "country", "entity": "user", "kind": "categorical"}])
    frames.write(log, "items", frames.items({}, {"item_id": "j", "price": 300}))
    frames.write(log, "users", frames.users({"attribute_country": "no"}))
    frames.write(
        log, "impressions", frames.impressions({}, {"impression_id": "r1:1", "shown_at": at(hours=3)})
    )
    following = frames.impressions(
        {"impression_id": "s:1", "shown_at": at(days=1)},
        {"impression_id": "s:2", "shown_at": at(days=1)},
        {"impression_id": "t:1", "shown_at": at(days=1, hours=2), "user_id": "new", "item_id": "j"},
        {"impression_id": "x:1", "shown_at": at(days=2, hours=2)},
    )
    log.write("impressions", frames.day + timedelta(days=1), following)
    rating = {"kind": "rating", "impression_id": "s:1", "occurred_at": at(days=1, hours=1)}
    log.write(
        "feedback", frames.day + timedelta(days=1),
        frames.feedback({**rating, "kind": "click"}, {**rating, "value": 80.0}),
    )  # fmt: skip
    chain = build_snapshots(log, frames.day + timedelta(days=1), config, Stages(tmp_path / "stages"))
    return [profile_day(read_day(log, chain, i, config), {}, config.tasks, config.timezone) for i in range(2)]


def test_a_day_by_hand(days):
    first, second = days
    assert (first.requests, second.requests) == (2, 2)
    assert [h for h, n in enumerate(second.hours) if n] == [12, 14], "the misfiled row's hour counts as well"
    assert second.hours[14] == 2
    table = second.tables["impressions"]
    assert (table.rows, table.repeats, table.quarantine) == (3, 1, {"outside_partition": 1})
    assert table.gap_hours == 10.0
    assert first.ids["user_id"].new == first.ids["user_id"].distinct == 1, "on the first day all are new"
    assert (second.ids["user_id"].new, second.ids["user_id"].distinct) == (1, 2)
    assert (second.ids["user_id"].top, second.ids["user_id"].top_rows) == ("u", 2)
    assert second.ids["item_id"].new == 0
    assert second.received == {"click": 1, "rating": 1}
    assert second.outside == {"rating": 1}


def test_the_model_sees_items_and_users_of_each_impression(days):
    columns = days[1].tables["impressions"].columns
    assert columns["user.attribute_country"].categories == {"no": 2}
    assert columns["user.attribute_country"].nulls == 1
    assert (columns["item.price"].low, columns["item.price"].high) == (100, 300)
    assert columns["item.price"].effective == pytest.approx(9 / 5), "two of one item and one of another"
    assert days[1].tables["items"].rows == 0, "no item was written on the second day"
    assert days[0].tables["items"].columns["price"].rows == 2


def test_prices_of_one_item_are_one_draw_however_many_users_paid_them(tmp_path, frames, at, make_config):
    log, config = InteractionLog(tmp_path / "log"), make_config()
    frames.write(log, "items", frames.items({}))
    users = [f"u{n}" for n in range(6)]
    shown = [{"impression_id": f"{user}:1", "request_id": user, "user_id": user} for user in users]
    frames.write(log, "impressions", frames.impressions(*shown))
    paid = {"kind": "click", "value": 80.0, "occurred_at": at(hours=1)}
    bought = [{**paid, "impression_id": f"{user}:1", "user_id": user, "feedback_id": user} for user in users]
    frames.write(log, "feedback", frames.feedback(*bought))
    chain = build_snapshots(log, frames.day, config, Stages(tmp_path / "stages"))
    day = profile_day(read_day(log, chain, 0, config), {}, config.tasks, config.timezone)
    column = day.tables["feedback"].columns["value[click]"]
    assert (column.rows, column.effective) == (6, 1.0)


def test_an_hour_counts_users_and_no_drawn_negatives(tmp_path, frames, at, make_config):
    log, config = InteractionLog(tmp_path / "log"), make_config()
    frames.write(log, "items", frames.items({}, {"item_id": "j"}))
    drawn = {"sampled": True, "sampling_rate": 0.5, "user_id": "drawn"}
    rows = frames.impressions(
        {"impression_id": "a:1", "request_id": "a"},
        {"impression_id": "b:1", "request_id": "b", "item_id": "j"},
        {"impression_id": "c:1", "request_id": "c", "shown_at": at(hours=2)},
        {"impression_id": "n:1", "request_id": "n", **drawn},
    )
    frames.write(log, "impressions", rows)
    chain = build_snapshots(log, frames.day, config, Stages(tmp_path / "stages"))
    day = profile_day(read_day(log, chain, 0, config), {}, config.tasks, config.timezone)
    assert {hour: users for hour, users in enumerate(day.hours) if users} == {12: 1, 14: 1}


def test_hours_of_misfiled_rows_are_those_of_the_logs_zone_without_drawn_negatives(
    tmp_path, frames, at, make_config
):
    log, config = InteractionLog(tmp_path / "log"), make_config(timezone="Asia/Tokyo")
    frames.write(log, "items", frames.items({}))
    misfiled = {"shown_at": at(days=2, hours=1)}
    rows = frames.impressions(
        {"impression_id": "a:1"},
        misfiled | {"impression_id": "m:1", "user_id": "late"},
        misfiled | {"impression_id": "d:1", "user_id": "drawn", "sampled": True, "sampling_rate": 0.5},
    )
    log.write("impressions", frames.day, rows)
    chain = build_snapshots(log, frames.day, config, Stages(tmp_path / "stages"))
    day = profile_day(read_day(log, chain, 0, config), {}, config.tasks, config.timezone)
    assert {hour: users for hour, users in enumerate(day.hours) if users} == {21: 1, 22: 1}


def test_two_days_share_as_much_of_their_sketch_as_of_their_rows(days):
    assert len(days[0].sketch) == 2
    assert len({*days[0].sketch} & {*days[1].sketch}) == 1, "noon's row, a day later"


def test_labels_count_only_closed_windows(frames, at):
    task = TaskSpec(name="click", feedback="click", head="binary", window=3600)
    shown = frames.impressions(
        {"impression_id": "a:1"}, {"impression_id": "b:1"}, {"impression_id": "c:1", "shown_at": at(hours=2)}
    )
    clicks = frames.feedback({"impression_id": "a:1", "occurred_at": at(minutes=1)})
    as_of = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)
    assert matured_labels(shown, clicks, [task], as_of) == {"click": {"labelled": 1, "rows": 2}}
