"""The chain of snapshots: point in time, the night's purity, and what is rebuilt when a partition changes."""

import os
from datetime import date, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features.build import build_snapshots, item_rows, periods, remove_outdated, user_rows
from recsys.errors import DataError
from recsys.log import InteractionLog, period_end
from recsys.stages import Stages

TABLES = (
    "users",
    "items",
    "tail",
    "taken",
    "user_tile",
    "item_tile",
    "cross_category",
    "cross_category_tile",
    "seen",
    "examples",
    "events",
    "new_items",
    "feedback",
)
LAST = date(2026, 1, 30)


def _copy(log, root, until=date.max):
    """Copy a log's partitions up to a day."""
    made = InteractionLog(root)
    for table in ("impressions", "feedback", "users", "items"):
        for day in log.days(table):
            if day <= until:
                made.write(table, day, log.read(table, day), stem="simulated")
    return made


def _assert_same(one, other):
    assert [s.path.name for s in one] == [s.path.name for s in other], "content addresses"
    for a, b in zip(one, other, strict=True):
        for table in TABLES:
            assert_frame_equal(a.table(table), b.table(table))


@pytest.fixture(params=["P1D", "P1W"])
def any_period(request, make_config):
    """Give a config by day, and one by week whose last week the night cuts in two."""
    return make_config(period=request.param)


@pytest.mark.parametrize("back", [1, 3])
def test_a_night_does_not_change_when_the_log_also_holds_later_days(shop_log, any_period, tmp_path, back):
    until = LAST - timedelta(days=back)
    alone = build_snapshots(
        _copy(shop_log, tmp_path / "log", until), until, any_period, Stages(tmp_path / "a")
    )
    among = build_snapshots(shop_log, until, any_period, Stages(tmp_path / "b"))
    assert alone[-1].day == until
    _assert_same(alone, among)


@pytest.mark.parametrize("back", [1, 3])
def test_an_earlier_night_is_the_beginning_of_a_later_one(shop_log, shop_chain, config, tmp_path, back):
    earlier = build_snapshots(shop_log, LAST - timedelta(days=back), config, Stages(tmp_path))
    _assert_same(earlier, shop_chain[: len(earlier)])


def test_a_period_is_the_same_after_one_in_memory_and_after_one_on_disk(
    shop_log, shop_chain, config, tmp_path
):
    """The chain was built in one go; here its last day is built after reading the one before."""
    build_snapshots(shop_log, LAST - timedelta(days=1), config, Stages(tmp_path))
    after = build_snapshots(shop_log, LAST, config, Stages(tmp_path))
    _assert_same(after[-1:], shop_chain[-1:])


def test_later_days_are_not_even_opened(shop_log, any_period, tmp_path):
    log = _copy(shop_log, tmp_path / "log")
    until = LAST - timedelta(days=1)
    for table in ("impressions", "feedback", "users", "items"):
        for path in log.files(table, LAST):
            path.write_bytes(b"not Parquet")
    assert build_snapshots(log, until, any_period, Stages(tmp_path / "stages"))[-1].day == until
    with pytest.raises(DataError, match=r"date=2026-01-30.*cannot be read as Parquet"):
        build_snapshots(log, LAST, any_period, Stages(tmp_path / "stages"))


def test_a_second_run_builds_nothing(shop_log, config, tmp_path, shop_chain):
    stages = Stages(tmp_path / "stages")
    build_snapshots(shop_log, LAST, config, stages)
    before = {p: os.stat(p).st_mtime_ns for p in stages.root.rglob("*")}
    build_snapshots(shop_log, LAST, config, stages)
    assert {p: os.stat(p).st_mtime_ns for p in stages.root.rglob("*")} == before


@pytest.mark.parametrize("changed", [0, 2, 5])
def test_a_changed_partition_rebuilds_its_day_and_what_follows(shop_log, config, tmp_path, changed):
    log, stages = _copy(shop_log, tmp_path / "log"), Stages(tmp_path / "stages")
    before = build_snapshots(log, LAST, config, stages)
    day = before[changed].day
    log.write("impressions", day, log.read("impressions", day).slice(1), stem="simulated")
    after = build_snapshots(log, LAST, config, stages)
    same = [a.path == b.path for a, b in zip(before, after, strict=True)]
    assert same == [n < changed for n in range(len(before))]


def test_settings_that_do_not_shape_features_do_not_rebuild(shop_log, shop_chain, make_config, tmp_path):
    tasks = [t.model_dump(mode="json") for t in make_config().tasks]
    tasks[0]["weight"], tasks[0]["fusion_weight"] = 2.0, 9.0
    other = make_config(task=tasks, training={"learning_rate": 0.5})
    assert (
        build_snapshots(shop_log, LAST, other, Stages(tmp_path / "s"))[-1].path.name
        == shop_chain[-1].path.name
    )
    longer = make_config(features={"history_length": 6})
    assert (
        build_snapshots(shop_log, LAST, longer, Stages(tmp_path / "s"))[-1].path.name
        != shop_chain[-1].path.name
    )


def test_examples_see_only_what_was_received_before_them(shop_chain, config):
    lag = timedelta(seconds=config.features.ingestion_lag)
    for snapshot in shop_chain:
        received = snapshot.table("events")["received_at"]
        owner = snapshot.table("events")["user_id"]
        examples = snapshot.table("examples").filter(pl.col("history_stop") > pl.col("history_start"))
        newest = received.gather(examples["history_stop"] - 1)
        assert (newest < examples["shown_at"] - lag).all()
        assert (owner.gather(examples["history_start"]) == examples["user_id"]).all()
        assert (owner.gather(examples["history_stop"] - 1) == examples["user_id"]).all()


def test_yesterdays_rows_are_what_a_request_of_today_is_scored_with(shop_chain):
    yesterday, today = shop_chain[2], shop_chain[3]
    assert_frame_equal(user_rows(yesterday, today), yesterday.table("users"))
    items = item_rows(yesterday, today)
    known = yesterday.table("items").height
    assert_frame_equal(items.head(known), yesterday.table("items"))
    fresh = items.slice(known)
    assert fresh.height > 0
    assert fresh["impressions_life"].null_count() == fresh.height, "a new item has no counts yet"
    assert not set(fresh["item_id"]) & set(yesterday.table("items")["item_id"])


def test_the_first_day_knows_no_user_and_only_its_own_items(shop_chain):
    assert user_rows(None, shop_chain[0]).is_empty()
    assert item_rows(None, shop_chain[0]).columns == shop_chain[0].table("new_items").columns


def test_a_snapshot_is_as_of_the_end_of_its_business_day(shop_chain):
    for snapshot in shop_chain:
        end = period_end(snapshot.day, "UTC")
        assert (snapshot.table("tail")["received_at"] < end).all()
        assert (snapshot.table("users")["last_feedback_at"].drop_nulls() < end).all()
        assert (snapshot.table("users")["hours_since_feedback"].drop_nulls() >= 0).all()


def test_the_business_day_ends_at_local_midnight():
    assert period_end(date(2026, 1, 30), "Asia/Shanghai").isoformat() == "2026-01-30T16:00:00+00:00"
    assert period_end(date(2026, 3, 29), "Europe/Berlin").isoformat() == "2026-03-29T22:00:00+00:00", (
        "summer time"
    )


def test_quarantine_is_kept_and_counted(shop_log, config, tmp_path):
    log = _copy(shop_log, tmp_path / "log")
    day = log.days("feedback")[2]
    raw = log.read("feedback", day)
    log.write("feedback", day, pl.concat([raw, raw.head(3)]), stem="simulated")
    snapshot = build_snapshots(log, day, config, Stages(tmp_path / "stages"))[-1]
    assert snapshot.manifest["quarantine"] == {"feedback": {"duplicate": 3}}
    assert snapshot.manifest["rows"]["feedback"] == raw.height
    assert pl.read_parquet(snapshot.path / "quarantine" / "feedback.parquet").height == 3


def test_a_retry_on_the_next_day_counts_once_but_a_misfiled_copy_does_not_hide_the_good_one(
    frames, at, make_config, tmp_path
):
    log = InteractionLog(tmp_path / "log")
    frames.write(log, "items", frames.items({}))
    frames.write(log, "impressions", frames.impressions({}, {"impression_id": "n:1", "shown_at": at(days=1)}))
    twice = frames.feedback({"feedback_id": "twice"})
    moved = frames.feedback({"feedback_id": "moved", "occurred_at": at(days=1)})
    again = frames.feedback({"feedback_id": "twice", "occurred_at": at(), "received_at": at(days=1)})
    log.write("feedback", frames.day, pl.concat([twice, moved]))
    log.write("feedback", frames.day + timedelta(days=1), pl.concat([again, moved]))
    chain = build_snapshots(
        log, frames.day + timedelta(days=1), make_config(feature=[]), Stages(tmp_path / "s")
    )
    assert [s.manifest["quarantine"] for s in chain] == [
        {"feedback": {"outside_partition": 1}}, {"feedback": {"duplicate": 1}}
    ]  # fmt: skip
    assert chain[1].table("feedback")["feedback_id"].to_list() == ["moved"]


def test_an_item_updated_on_a_day_has_its_new_attributes_from_the_next(frames, at, make_config, tmp_path):
    log = InteractionLog(tmp_path / "log")
    days = [frames.day + timedelta(days=n) for n in range(2)]
    for n, day in enumerate(days):
        log.write("impressions", day, frames.impressions({"shown_at": at(days=n), "impression_id": f"{n}:1"}))
        log.write("items", day, frames.items({"title": f"title {n}"}))
    chain = build_snapshots(log, days[-1], make_config(feature=[]), Stages(tmp_path / "s"))
    assert [s.table("items")["title"].to_list() for s in chain] == [["title 0"], ["title 1"]]
    assert item_rows(chain[0], chain[1])["title"].to_list() == ["title 0"]


def test_a_day_without_any_row_is_a_period_too(frames, at, make_config, tmp_path):
    log = InteractionLog(tmp_path / "log")
    frames.write(log, "items", frames.items({}))
    frames.write(log, "impressions", frames.impressions({}, {"impression_id": "b:1", "shown_at": at(days=3)}))
    chain = build_snapshots(
        log, frames.day + timedelta(days=3), make_config(feature=[]), Stages(tmp_path / "s")
    )
    assert [s.manifest["rows"]["impressions"] for s in chain] == [1, 0, 0, 1]
    counts = [s.table("items")["impressions_1"].to_list() for s in chain]
    assert counts == [[1], [0], [0], [1]]


def test_weeks_start_on_monday_and_name_their_last_day(shop_log, make_config):
    config = make_config(period="P1W")
    found = periods(shop_log, LAST, config)
    assert [(p.start.isoformat(), p.day.isoformat()) for p in found] == [
        ("2026-01-19", "2026-01-25"), ("2026-01-26", "2026-01-30")
    ]  # fmt: skip


def test_an_empty_log_and_a_night_before_the_log_say_so(shop_log, config, tmp_path):
    with pytest.raises(DataError, match="no impressions in the log"):
        build_snapshots(InteractionLog(tmp_path), LAST, config, Stages(tmp_path / "s"))
    with pytest.raises(DataError, match=r"begins on 2026-01-25, after the night of 2026-01-01"):
        build_snapshots(shop_log, date(2026, 1, 1), config, Stages(tmp_path / "s"))


def test_a_group_that_no_item_has(shop_log, make_config, tmp_path):
    config = make_config(features={"group_items_by": ["attribute_brand"]})
    with pytest.raises(DataError, match=r"attribute_brand.*there are: category"):
        build_snapshots(shop_log, LAST, config, Stages(tmp_path / "s"))


def test_outdated_snapshots_go_whole_or_stay_whole(shop_log, config, tmp_path, monkeypatch):
    """Killed while it removes one: the log as it was before finds a day or none; the rest goes later."""
    log, stages = _copy(shop_log, tmp_path / "log"), Stages(tmp_path / "stages")
    first = log.days("impressions")[0]
    before = build_snapshots(log, first, config, stages)
    log.write("impressions", first, log.read("impressions", first).slice(1), stem="simulated")
    now = build_snapshots(log, first, config, stages)

    def some(folder, **_):
        (folder / "items.parquet").unlink()

    with monkeypatch.context() as killed:
        killed.setattr("features.build.shutil.rmtree", some)
        remove_outdated(now, stages)
    assert not before[0].path.exists()
    remove_outdated(now, stages)
    assert list((tmp_path / "stages" / "features").iterdir()) == [now[0].path]
