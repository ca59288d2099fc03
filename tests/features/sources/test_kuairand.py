"""KuaiRand: days, repeats, kinds, the allow-list, appended days, history before the log."""

import gzip
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from features.sources import kuairand, kuairand_side
from recsys.errors import DataError
from recsys.log import InteractionLog, business_day
from recsys.schema import KEYS, PARTITION_INSTANT, TABLES, with_free_columns

SHANGHAI = timedelta(hours=8)
LABEL_COLUMNS = {
    "watch_ratio", "finish", "like", "long_watch", "is_positive", "play_time_ms", "profile_stay_time",
    "comment_stay_time", "long_view", *kuairand.FLAGS.values(),
}  # fmt: skip


def at_ms(text: str) -> int:
    """Read Shanghai wall time as milliseconds since 1970."""
    return int((datetime.fromisoformat(text).replace(tzinfo=UTC) - SHANGHAI).timestamp() * 1000)


def exposure(user: int, video: int, at: str, **changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "user_id": user, "video_id": video, "time_ms": at_ms(at), "date": int(at[:10].replace("-", "")),
        "hourmin": int(at[11:13]) * 100, "long_view": 0, "play_time_ms": 0, "duration_ms": 10_000, "tab": 1,
        "watch_ratio": 0.5, "finish": 0, "like": 0, "long_watch": 0, "is_positive": 0,
        "profile_stay_time": 0, "comment_stay_time": 0, **dict.fromkeys(kuairand.FLAGS.values(), 0),
    }  # fmt: skip
    return row | changes


DAY_ONE = [
    exposure(1, 10, "2022-04-25 09:00:00", is_click=1, long_view=1, play_time_ms=9_600),
    exposure(1, 10, "2022-04-25 09:00:00", is_click=1, long_view=1, play_time_ms=9_600),
    exposure(1, 11, "2022-04-25 09:01:00", long_view=1, play_time_ms=3_000),  # contradiction: no click
    exposure(2, 10, "2022-04-25 10:00:00", is_click=1, is_like=1, play_time_ms=100),
    exposure(3, 12, "2022-04-25 11:00:00", play_time_ms=5_000, duration_ms=0),  # duration unknown
    exposure(9, 99, "2022-04-25 12:00:00", is_hate=1),  # user and video in no side table
]
DAY_TWO = [
    # shown before midnight, reported after it
    exposure(1, 12, "2022-04-25 23:58:00", date=20220426, hourmin=0, is_click=1, play_time_ms=2_000),
    exposure(1, 11, "2022-04-25 23:59:30", date=20220426, hourmin=0, play_time_ms=2_000),
    exposure(2, 12, "2022-04-26 00:30:00", is_click=1, play_time_ms=6_000),
    # the same exposure as on day one, reported again
    exposure(2, 10, "2022-04-25 10:00:00", date=20220426, is_click=1, is_like=1, play_time_ms=100),
    exposure(
        8, 98, "2022-04-26 08:00:00", hourmin=900, is_click=1, play_time_ms=1_000_000, duration_ms=900_000
    ),
]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    folder = tmp_path / "src with space"
    folder.mkdir()
    write_interactions(folder, "interactions_0425.parquet", DAY_ONE)
    codes = dict.fromkeys(kuairand_side.USER_TEXT, "0") | {
        "is_live_streamer": "-124",
        "onehot_feat4": "3.0",
    }
    numbers = dict.fromkeys(kuairand_side.USER_NUMBERS, 5)
    users = pl.DataFrame([{"user_id": user, **codes, **numbers} for user in (1, 2, 3, 7)])
    videos = pl.DataFrame(
        {
            "video_id": [10, 11, 12], "author_id": [5, 5, 6], "video_type": "NORMAL",
            "upload_dt": "2022-04-10", "upload_type": "Web", "server_width": 720.0,
            "video_duration": [10_000.0, 10_000.0, None],
            "server_height": 1280.0, "music_id": 3, "music_type": 9.0, "tag": ["39,68", "4", None],
        }
    )  # fmt: skip
    for name, frame in (("user_features_pure", users), ("video_features_basic_pure", videos)):
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(frame.write_csv().encode()))
    pl.DataFrame(
        {
            "user_id": [1, 3, 4],
            "history_len": [4, 1, 1],
            "last_time_ms": [
                at_ms("2022-04-24 23:59:59.900"),
                DAY_ONE[4]["time_ms"],
                at_ms("2022-04-20 08:00:00"),
            ],
            "watch_seq": [[10, 11, 11, 12], [12], [10]],
            "long_watch_seq": [[77, 11], [], []],
            "like_seq": [[12], [], []],
        }
    ).write_parquet(folder / "user_history_to_0424.parquet")
    return folder


def write_interactions(folder: Path, name: str, rows: list[dict[str, object]]) -> None:
    pl.DataFrame(rows).write_parquet(folder / name)


def convert(src: Path, out: Path) -> InteractionLog:
    log = InteractionLog(out)
    kuairand.convert(src, log)
    return log


def check_tables(log: InteractionLog, timezone: str) -> None:
    """Every partition keeps its schema, its keys and its day."""
    for table in TABLES:
        keys = []
        for day in log.days(table):
            frame = log.read(table, day)
            schema = with_free_columns(table, dict(frame.schema))
            schema.validate(frame)
            assert set(frame.columns) == set(schema.column_names())
            keys.append(frame.select(KEYS[table]))
            if table in PARTITION_INSTANT:
                assert frame.select((business_day(PARTITION_INSTANT[table], timezone) == day).all()).item()
        if table in ("impressions", "feedback"):
            assert not pl.concat(keys).is_duplicated().any()


def test_tables_keep_the_contract(src: Path, tmp_path: Path) -> None:
    log = convert(src, tmp_path / "log")
    check_tables(log, kuairand.TIMEZONE)
    assert log.days("impressions") == [date(2022, 4, 25)]
    assert log.days("feedback") == [date(2022, 4, 24), date(2022, 4, 25)]
    shown = log.read("impressions", date(2022, 4, 25))
    assert shown.select("position", "sampled", "sampling_rate", "propensity_kind").unique().rows() == [
        (1, False, 1.0, "unknown")
    ]
    assert shown["propensity"].null_count() == shown.height == 5


def test_repeats_contradictions_and_unknown_durations_are_counted(src: Path, tmp_path: Path) -> None:
    summary = kuairand.convert(src, InteractionLog(tmp_path / "log"))
    assert summary.duplicates["impressions: exact (user, video, time_ms) repeats"] == 1
    assert summary.notes["feedback: long_view without click, left out"] == 1
    assert summary.notes["feedback: played, duration unknown, no rating"] == 1
    assert (summary.first_day, summary.last_day) == (date(2022, 4, 25), date(2022, 4, 25))


def test_feedback_kinds_and_rating_scale(src: Path, tmp_path: Path) -> None:
    log = convert(src, tmp_path / "log")
    feedback = log.read("feedback", date(2022, 4, 25))
    found = {(r["user_id"], r["item_id"], r["kind"]): r["value"] for r in feedback.iter_rows(named=True)}
    assert found == {
        ("1", "10", "click"): None, ("1", "10", "long_view"): None, ("1", "10", "rating"): 5.0,
        ("1", "11", "rating"): 3.0, ("2", "10", "click"): None, ("2", "10", "like"): None,
        ("2", "10", "rating"): 1.0, ("9", "99", "hate"): None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("share", "stars"), [(0.049, 1), (0.05, 2), (0.2, 3), (0.49, 3), (0.5, 4), (0.95, 5), (3.0, 5)]
)
def test_rating_edges_belong_to_the_higher_star(src: Path, tmp_path: Path, share: float, stars: int) -> None:
    rows = [exposure(1, 10, "2022-04-25 09:00:00", play_time_ms=round(share * 10_000))]
    write_interactions(src, "interactions_0425.parquet", rows)
    log = convert(src, tmp_path / "log")
    assert log.read("feedback", date(2022, 4, 25))["value"].to_list() == [stars]


def test_feedback_occurs_at_the_end_of_the_play_and_is_received_when_reported(
    src: Path, tmp_path: Path
) -> None:
    write_interactions(src, "interactions_0426.parquet", DAY_TWO)
    log = convert(src, tmp_path / "log")
    first = log.read("feedback", date(2022, 4, 25)).filter(pl.col("feedback_id").str.ends_with(":click"))
    shown = log.read("impressions", date(2022, 4, 25)).select("impression_id", "shown_at")
    delay = (
        first.join(shown, on="impression_id").select(pl.col("occurred_at") - pl.col("shown_at")).to_series()
    )
    assert sorted(delay.to_list()) == [timedelta(milliseconds=100), timedelta(milliseconds=9_600)]
    long = log.read("feedback", date(2022, 4, 26)).filter(pl.col("user_id") == "8", pl.col("kind") == "click")
    started = datetime(2022, 4, 26, 0, 0, tzinfo=UTC)
    assert long["occurred_at"].item() == started + timedelta(minutes=15)  # not 1,000 s
    assert long["received_at"].item() == started + timedelta(hours=1)  # its report's hour


def test_exposures_reported_after_midnight_stay_in_their_date_in_order(src: Path, tmp_path: Path) -> None:
    write_interactions(src, "interactions_0426.parquet", DAY_TWO)
    log = InteractionLog(tmp_path / "log")
    summary = kuairand.convert(src, log)
    assert summary.notes["impressions: shown before midnight, reported after it; moved"] == 2
    second = log.read("impressions", date(2022, 4, 26)).sort("shown_at")
    assert second["item_id"].to_list() == ["12", "11", "12", "98"]
    midnight = datetime(2022, 4, 25, 16, tzinfo=UTC)
    assert all(midnight <= at < midnight + timedelta(minutes=1) for at in second["shown_at"].to_list()[:2])
    check_tables(log, kuairand.TIMEZONE)


def test_appended_days_leave_old_partitions_byte_equal(src: Path, tmp_path: Path) -> None:
    convert(src, tmp_path / "short")
    write_interactions(src, "interactions_0426.parquet", DAY_TWO)
    convert(src, tmp_path / "long")
    old = {p.relative_to(tmp_path / "short") for p in (tmp_path / "short").rglob("*.parquet")}
    new = {p.relative_to(tmp_path / "long") for p in (tmp_path / "long").rglob("*.parquet")}
    assert {str(p.parent) for p in new - old} == {
        f"{t}/date=2022-04-26" for t in ("impressions", "feedback", "users", "items")
    }
    for name in old:
        assert (tmp_path / "short" / name).read_bytes() == (tmp_path / "long" / name).read_bytes(), name


def test_order_and_split_of_files_do_not_matter(src: Path, tmp_path: Path) -> None:
    write_interactions(src, "interactions_0426.parquet", DAY_TWO)
    convert(src, tmp_path / "a")
    (src / "interactions_0426.parquet").unlink()
    write_interactions(src, "interactions_0425.parquet", list(reversed(DAY_TWO + DAY_ONE + DAY_ONE)))
    convert(src, tmp_path / "b")
    for path in (tmp_path / "a").rglob("*.parquet"):
        if path.parent.name != "quarantine":
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_free_columns_are_the_allow_list_and_hold_nothing_from_labels(src: Path, tmp_path: Path) -> None:
    log = convert(src, tmp_path / "log")
    allowed = {
        "impressions": {"context_tab"},
        "users": {
            kuairand_side.USER_HISTORY,
            *(f"attribute_{c}" for c in (*kuairand_side.USER_TEXT, *kuairand_side.USER_NUMBERS)),
        },
        "items": {
            kuairand_side.ITEM_TAGS,
            *kuairand_side.ITEM_NUMBERS,
            *(f"attribute_{c}" for c in kuairand_side.ITEM_TEXT),
        },
        "feedback": set(),
    }
    for table, names in allowed.items():
        for day in log.days(table):
            assert set(log.read(table, day).columns) - set(TABLES[table].column_names()) == names
    raw = {name.split("_", 1)[1] for names in allowed.values() for name in names}
    assert not raw & LABEL_COLUMNS
    assert not set(kuairand.CONTEXT.values()) & LABEL_COLUMNS
    assert set(kuairand_side.USER_AS_OF_LATER) < allowed["users"]


def test_history_comes_before_the_first_exposure_and_never_reaches_into_the_log(
    src: Path, tmp_path: Path
) -> None:
    log = InteractionLog(tmp_path / "log")
    summary = kuairand.convert(src, log)
    history = log.read("feedback", date(2022, 4, 24))
    first = log.read("impressions", date(2022, 4, 25))["shown_at"].min()
    assert history["received_at"].max() < first  # type: ignore[operator]
    assert history["impression_id"].null_count() == history.height
    assert "3" not in history["user_id"].to_list()  # its history ends inside the log
    assert summary.quarantined == {"history: history reaches into the log's first day": 1}
    mine = history.filter(pl.col("user_id") == "1").sort("received_at", "kind")
    assert mine.select("item_id", "kind").rows() == [
        ("77", "long_view"), ("10", "view"), ("11", "long_view"), ("11", "view"),
        ("12", "like"), ("12", "view"),
    ]  # fmt: skip
    assert mine["occurred_at"].is_sorted()
    assert (mine["occurred_at"] <= mine["received_at"]).all()


def test_exposure_that_ends_the_history_is_left_out(src: Path, tmp_path: Path) -> None:
    twin = exposure(4, 10, "2022-04-24 23:59:00", date=20220425, hourmin=0, is_click=1)
    write_interactions(src, "interactions_0425.parquet", [*DAY_ONE, twin])
    path = src / "user_history_to_0424.parquet"
    history = pl.read_parquet(path)
    at = pl.when(pl.col("user_id") == 4).then(pl.lit(twin["time_ms"], pl.Int64)).otherwise("last_time_ms")
    history.with_columns(last_time_ms=at).write_parquet(path)
    log = InteractionLog(tmp_path / "log")
    summary = kuairand.convert(src, log)
    assert summary.duplicates["impressions: already the last event of the user's history"] == 1
    assert "4" not in log.read("impressions", date(2022, 4, 25))["user_id"].to_list()


def test_users_and_items_include_those_only_in_the_log(src: Path, tmp_path: Path) -> None:
    write_interactions(src, "interactions_0426.parquet", DAY_TWO)
    log = convert(src, tmp_path / "log")
    assert log.read("users", date(2022, 4, 24))["user_id"].to_list() == ["1", "2", "3", "7"]
    assert log.read("users", date(2022, 4, 25))["user_id"].to_list() == ["9"]
    assert log.read("users", date(2022, 4, 26))["user_id"].to_list() == ["8"]
    assert log.read("items", date(2022, 4, 25))["item_id"].to_list() == ["99"]
    user = log.read("users", date(2022, 4, 24)).row(0, named=True)
    assert user["attribute_is_live_streamer"] is None  # -124
    assert user["attribute_onehot_feat4"] == "3"
    assert user[kuairand_side.USER_HISTORY] == 4.0
    item = log.read("items", date(2022, 4, 24)).row(0, named=True)
    assert item["category"] == "39"
    assert item["attribute_tags"] == ["39", "68"]
    assert item["available_from"] == datetime(2022, 4, 9, 16, tzinfo=UTC)


def test_impossible_rows_are_quarantined_with_reasons(src: Path, tmp_path: Path) -> None:
    bad = [
        exposure(1, 10, "2022-04-25 15:00:00", is_click=2),
        exposure(1, 10, "2022-04-25 15:01:00", date=20220230),
        exposure(1, 10, "2022-04-25 15:02:00", time_ms=at_ms("2122-04-25 15:02:00")),
        exposure(1, 10, "2022-04-25 15:03:00", time_ms=None),
        exposure(1, 10, "2022-04-25 15:04:00", date=20220427),
        exposure(1, 10, "2022-04-25 15:05:00", play_time_ms=-1),
        exposure(1, 10, "2022-04-25 15:06:00", hourmin=-1),
    ]
    write_interactions(src, "interactions_0425.parquet", [*DAY_ONE, *bad])
    summary = kuairand.convert(src, InteractionLog(tmp_path / "log"))
    reasons = {k: n for k, n in summary.quarantined.items() if k.startswith("impressions")}
    assert reasons == {
        "impressions: user, video or time is missing": 1,
        "impressions: time_ms lies in the future": 1,
        "impressions: date is not YYYYMMDD": 1,
        "impressions: hourmin is not HHMM": 1,
        "impressions: date and time_ms disagree by a day or more": 1,
        "impressions: a flag is neither 0 nor 1": 1,
        "impressions: play time or duration is missing or negative": 1,
    }
    kept = pl.read_parquet(tmp_path / "log" / "quarantine" / "kuairand.parquet")
    assert kept.columns == ["table", "reason", "row"]
    assert kept.height == sum(summary.quarantined.values())
    assert all(tally.adds_up for tally in summary.accounting.values()), summary.accounting


def test_missing_files_and_columns_are_named(src: Path, tmp_path: Path) -> None:
    log = InteractionLog(tmp_path / "log")
    pl.DataFrame(DAY_ONE).drop("is_click").write_parquet(src / "interactions_0426.parquet")
    with pytest.raises(DataError, match=r"interactions_0426\.parquet: no column 'is_click'"):
        kuairand.convert(src, log)
    (src / "interactions_0426.parquet").write_bytes(b"PAR1 not parquet")
    with pytest.raises(DataError, match=r"interactions_0426\.parquet cannot be read"):
        kuairand.convert(src, log)
    (src / "interactions_0426.parquet").unlink()
    (src / "video_features_basic_pure.csv.gz").unlink()
    with pytest.raises(DataError, match=r"no video_features_basic_pure\.csv"):
        kuairand.convert(src, log)
    assert not log.root.exists(), "a failed conversion leaves nothing behind"
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"no interactions_\*\.parquet; expected"):
        kuairand.convert(empty, log)
    with pytest.raises(DataError, match="is not a folder"):
        kuairand.convert(tmp_path / "nowhere", log)


@pytest.mark.data
def test_real_log(tmp_path: Path, findings_of) -> None:
    root = os.environ.get("RECSYS_DATA")
    if not root or not (Path(root) / "kuairand_pure").is_dir():
        pytest.skip("set RECSYS_DATA to the folder that holds kuairand_pure")
    src = Path(root) / "kuairand_pure"
    log = InteractionLog(tmp_path / "log")
    summary = kuairand.convert(src, log)
    check_tables(log, kuairand.TIMEZONE)
    assert not findings_of(log)
    assert all(tally.adds_up for tally in summary.accounting.values()), summary.accounting
    raw = pl.concat([pl.read_parquet(p) for p in sorted(src.glob("interactions_*.parquet"))])
    distinct = raw.unique(["user_id", "video_id", "time_ms"])
    repeats = summary.duplicates["impressions: exact (user, video, time_ms) repeats"]
    twins = summary.duplicates["impressions: already the last event of the user's history"]
    assert repeats == raw.height - distinct.height
    assert summary.rows["impressions"] == distinct.height - twins
    assert twins <= 3
    assert not summary.quarantined
    shown = pl.concat([log.read("impressions", day) for day in log.days("impressions")])
    done = pl.concat([log.read("feedback", day) for day in log.days("impressions")])
    delay = done.join(shown.select("impression_id", "shown_at"), on="impression_id")
    assert (delay["occurred_at"] - delay["shown_at"]).max() <= timedelta(minutes=15)  # type: ignore[operator]
    assert done["impression_id"].null_count() == 0
    clicked = done.filter(pl.col("kind") == "click")["impression_id"]
    views = done.filter(pl.col("kind") == "long_view")["impression_id"]
    assert views.is_in(clicked.implode()).all()
