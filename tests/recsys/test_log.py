"""The log on disk: partitions by business day, files replaced whole, errors that name the file."""

from datetime import UTC, date, datetime

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from recsys.errors import DataError
from recsys.log import InteractionLog, business_day, latest_by_key
from recsys.schema import TABLES, empty

DAY = date(2026, 1, 5)


@pytest.fixture
def log(tmp_path):
    return InteractionLog(tmp_path / "log")


def test_a_round_trip(log, frames):
    frame = frames.impressions({"context_device": "phone"}, {"position": 2})
    path = log.write("impressions", DAY, frame)
    assert path == log.root / "impressions" / "date=2026-01-05" / "part.parquet"
    assert_frame_equal(log.read("impressions", DAY), frame)
    assert log.days("impressions") == [DAY]


@pytest.mark.parametrize("table", sorted(TABLES))
def test_an_absent_partition_is_an_empty_table(log, table):
    assert_frame_equal(log.read(table, DAY), empty(table))
    assert log.days(table) == []


def test_a_column_that_older_files_lack_is_null(log, frames):
    log.write("feedback", DAY, frames.feedback({"feedback_id": "old"}).drop("merged_from"), stem="1")
    assert log.read("feedback", DAY).schema == empty("feedback").schema
    log.write("feedback", DAY, frames.feedback({"feedback_id": "new", "merged_from": "s"}), stem="2")
    assert log.read("feedback", DAY)["merged_from"].to_list() == [None, "s"]


def test_files_of_a_partition_are_stacked_by_name(log, frames):
    log.write("users", DAY, frames.users({"user_id": "b", "attribute_x": 1}), stem="2")
    log.write("users", DAY, frames.users({"user_id": "a"}), stem="1")
    assert log.read("users", DAY)["user_id"].to_list() == ["a", "b"]
    assert log.read("users", DAY)["attribute_x"].to_list() == [None, 1]


def test_a_file_is_replaced_whole_or_not_at_all(log, frames, monkeypatch):
    log.write("users", DAY, frames.users({}))

    def fail(self, path, **_):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pl.DataFrame, "write_parquet", fail)
    with pytest.raises(KeyboardInterrupt):
        log.write("users", DAY, frames.users({"user_id": "new"}))
    monkeypatch.undo()
    assert log.read("users", DAY)["user_id"].to_list() == ["u"]
    assert len(list((log.root / "users" / "date=2026-01-05").iterdir())) == 1


def test_rows_are_split_by_business_day(log, frames):
    late = datetime(2026, 1, 5, 20, tzinfo=UTC)
    frame = frames.impressions({}, {"shown_at": late})
    assert log.write_by_day("impressions", frame, business_day("shown_at", "Asia/Shanghai")) == [
        DAY,
        date(2026, 1, 6),
    ]
    assert log.read("impressions", date(2026, 1, 6))["shown_at"].to_list() == [late]
    assert log.read("impressions", DAY).columns == frame.columns


def test_later_rows_replace_earlier_ones(frames):
    days = [frames.items({"title": "old"}, {"item_id": "j"}), frames.items({"title": "new"})]
    found = latest_by_key(days, "item_id")
    assert found["item_id"].to_list() == ["j", "i"] or found["item_id"].to_list() == ["i", "j"]
    assert found.filter(pl.col("item_id") == "i")["title"].to_list() == ["new"]


def test_what_is_no_partition_and_no_parquet(log):
    folder = log.root / "users" / "date=tomorrow"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match=r"date=tomorrow is not a partition"):
        log.days("users")
    broken = log.root / "items" / "date=2026-01-05" / "x.parquet"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"PAR1 torn")
    with pytest.raises(DataError, match=r"x\.parquet cannot be read as Parquet"):
        log.read("items", DAY)


def test_a_log_without_a_table_says_what_writes_one(log):
    with pytest.raises(DataError, match=r"no impressions in the log.*recsys simulate"):
        log.require_days("impressions")
