from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from features.sources.journal import ingest_journal
from recsys.errors import DataError
from recsys.journal import FOLDER, MAGIC, Rows, encode
from recsys.log import InteractionLog
from recsys.schema import empty, with_free_columns

NOON = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000


def answer(request_id: str, at_ms: int, **context: object) -> bytes:
    same = {"request_id": request_id, "user_id": "u1", **{f"context_{k}": v for k, v in context.items()}}
    request = {
        **same,
        "requested_at": at_ms,
        "page_size": 2,
        "policy": "greedy",
        "degradation": ["NO_BUNDLE"],
    }
    impressions = {**same, "shown_at": at_ms, "explored": False, "sampled": False, "sampling_rate": 1.0}
    each = {
        "impression_id": [f"{request_id}:1", f"{request_id}:2"],
        "item_id": ["a", "b"],
        "position": [1, 2],
        "propensity": [0.5, 0.25],
        "propensity_kind": ["exact", "exact"],
    }
    rows = [Rows(table="requests", same=request), Rows(table="impressions", same=impressions, each=each)]
    return encode(at_ms, rows)


def feedback(feedback_id: str, at_ms: int) -> bytes:
    row = {
        "feedback_id": feedback_id,
        "impression_id": "r1:1",
        "user_id": "u1",
        "item_id": "a",
        "kind": "click",
    }
    return encode(at_ms, [Rows(table="feedback", same={**row, "occurred_at": at_ms, "received_at": at_ms})])


@pytest.fixture
def log(tmp_path: Path) -> InteractionLog:
    (tmp_path / "journal").mkdir()
    return InteractionLog(tmp_path)


def write(log: InteractionLog, name: str, *records: bytes) -> Path:
    path = log.root / "journal" / name
    path.write_bytes(MAGIC + b"".join(records))
    return path


def parquet(log: InteractionLog) -> dict[str, bytes]:
    return {str(p.relative_to(log.root)): p.read_bytes() for p in sorted(log.root.rglob("*.parquet"))}


def test_rows_become_valid_tables_in_their_business_days(log) -> None:
    write(
        log,
        "s1.journal",
        answer("r1", NOON, device="tv"),
        answer("r2", NOON + 13 * HOUR),
        feedback("f1", NOON),
    )
    summary = ingest_journal(log, "UTC")
    assert summary.rows == {"feedback": 1, "impressions": 4, "requests": 2}
    assert log.days("impressions") == [date(2026, 3, 1), date(2026, 3, 2)]
    for table in ("requests", "impressions", "feedback"):
        frame = log.read(table, date(2026, 3, 1))
        schema = with_free_columns(table, dict(frame.schema))
        schema.validate(frame)
        assert set(empty(table).schema) <= set(frame.columns)
    shown = log.read("impressions", date(2026, 3, 1))
    assert shown["context_device"].to_list() == ["tv", "tv"]
    assert shown["shown_at"].to_list() == [datetime(2026, 3, 1, 12, tzinfo=UTC)] * 2
    assert [p.name for p in log.files("impressions", date(2026, 3, 1))] == ["journal-s1.parquet"]


def test_the_business_day_is_the_time_zones(log) -> None:
    write(log, "s1.journal", answer("r1", NOON + 5 * HOUR))
    ingest_journal(log, "UTC")
    assert log.days("requests") == [date(2026, 3, 1)]
    ingest_journal(log, "Asia/Shanghai")
    assert log.files("requests", date(2026, 3, 1)) == []
    assert log.read("requests", date(2026, 3, 2)).height == 1


def test_a_file_that_grew_replaces_its_parquet_and_an_unchanged_one_is_skipped(log) -> None:
    path = write(log, "s1.open", answer("r1", NOON))
    write(log, "s0.journal", answer("r0", NOON))
    assert ingest_journal(log, "UTC").num_ingested == 2
    assert ingest_journal(log, "UTC").num_skipped == 2
    path.write_bytes(path.read_bytes() + answer("r2", NOON) + b"torn")
    summary = ingest_journal(log, "UTC")
    assert (summary.num_ingested, summary.num_skipped, summary.torn_bytes) == (1, 1, 4)
    assert log.read("requests", date(2026, 3, 1))["request_id"].to_list() == ["r0", "r1", "r2"]


def test_sealing_a_file_does_not_double_it(log) -> None:
    path = write(log, "s1.open", answer("r1", NOON))
    ingest_journal(log, "UTC")
    path.rename(path.with_suffix(".journal"))
    assert ingest_journal(log, "UTC").num_skipped == 1
    assert log.read("requests", date(2026, 3, 1)).height == 1


def test_the_same_journal_gives_the_same_bytes(log, tmp_path) -> None:
    records = [answer(f"r{i}", NOON + i * HOUR, device="tv", hour=i) for i in range(20)]
    path = write(log, "s1.open", *records[:7])
    ingest_journal(log, "UTC")
    path.write_bytes(MAGIC + b"".join(records))
    ingest_journal(log, "UTC")
    in_two_steps = parquet(log)
    for name in in_two_steps:
        (log.root / name).unlink()
    ingest_journal(log, "UTC")
    assert parquet(log) == in_two_steps


def test_a_key_that_comes_twice_counts_once(log) -> None:
    write(log, "s1.journal", feedback("f1", NOON), feedback("f1", NOON + 1), feedback("f2", NOON))
    summary = ingest_journal(log, "UTC")
    assert (summary.rows, summary.duplicates) == ({"feedback": 2}, {"feedback": 1})
    assert log.read("feedback", date(2026, 3, 1))["received_at"].to_list() == [
        datetime(2026, 3, 1, 12, tzinfo=UTC),
        datetime(2026, 3, 1, 12, tzinfo=UTC),
    ]


def test_the_last_row_of_an_item_holds_and_lies_in_the_day_it_was_sent(log) -> None:
    def item(at_ms: int, title: str, **more: object) -> bytes:
        return encode(at_ms, [Rows(table="items", same={"item_id": "a", "title": title, **more})])

    write(log, "s1.journal", item(NOON, "old"), item(NOON + 1, "new", attribute_size=3, price=250))
    ingest_journal(log, "UTC")
    frame = log.read("items", date(2026, 3, 1))
    assert frame.select("item_id", "title", "price", "attribute_size").rows() == [("a", "new", 250, 3.0)]


def patch(at_ms: int, item_id: str, fields: list[str], **values: object) -> bytes:
    each = {"item_id": [item_id], "fields": [fields], **{name: [value] for name, value in values.items()}}
    return encode(at_ms, [Rows(table="item_patches", each=each)])


def items(log: InteractionLog, day: int) -> list[dict[str, object]]:
    frame = log.read("items", date(2026, 3, day)).sort("item_id")
    return [{name: v for name, v in row.items() if v is not None} for row in frame.to_dicts()]


def test_two_servers_that_patch_one_item_lose_no_field(log) -> None:
    write(log, "s1.journal", patch(NOON, "a", ["title"], title="A"), patch(NOON + 2, "a", ["price"], price=2))
    write(
        log,
        "s2.open",
        patch(NOON + 1, "a", ["price", "category"], price=1, category="c"),
        patch(NOON + 3, "a", ["attribute_size"], attribute_size=3.0),
    )
    summary = ingest_journal(log, "UTC")
    assert items(log, 1) == [
        {"item_id": "a", "title": "A", "category": "c", "price": 2, "attribute_size": 3.0}
    ]
    assert (summary.rows, summary.duplicates) == ({"items": 2}, {"items": 2})


def test_patches_change_the_row_of_the_days_before_and_old_rows_are_in_their_place(log) -> None:
    whole = {"item_id": "a", "title": "T", "price": 7, "available_until": NOON, "attribute_x": "y"}
    log.write("items", date(2026, 2, 1), pl.DataFrame({"item_id": ["a", "b"], "title": ["import", "B"]}))
    write(
        log,
        "s1.journal",
        patch(NOON, "a", ["title"], title="lost"),
        encode(NOON + 1, [Rows(table="items", same=whole)]),
        patch(NOON + 2, "a", ["price"], price=8),
    )
    ingest_journal(log, "UTC")
    until = datetime(2026, 3, 1, 12, tzinfo=UTC)
    first = {"item_id": "a", "title": "T", "price": 8, "available_until": until, "attribute_x": "y"}
    assert items(log, 1) == [first]
    write(
        log,
        "s2.journal",
        patch(NOON + 24 * HOUR, "a", ["available_until", "attribute_z"], attribute_z="z"),
        patch(NOON + 24 * HOUR, "b", ["price"], price=1),
        patch(NOON + 48 * HOUR, "a", ["attributes"]),
    )
    ingest_journal(log, "UTC")
    second = {"item_id": "a", "title": "T", "price": 8, "attribute_x": "y", "attribute_z": "z"}
    assert items(log, 2) == [second, {"item_id": "b", "title": "B", "price": 1}]
    assert items(log, 3) == [{"item_id": "a", "title": "T", "price": 8}]
    # A file that comes late changes the days after it too.
    write(log, "s0.journal", patch(NOON + 5, "a", ["title"], title="late"))
    ingest_journal(log, "UTC")
    assert items(log, 3) == [{"item_id": "a", "title": "late", "price": 8}]
    before = parquet(log)
    for path in (log.root / "items").glob("*/upserts.parquet"):
        path.unlink()
    assert ingest_journal(log, "UTC").num_ingested == 0
    assert parquet(log) == before


def test_a_poisoned_row_does_not_stop_the_night(log, capsys) -> None:
    write(
        log,
        "s1.journal",
        patch(NOON, "a", ["price", "title"], price="x", title="bad"),
        encode(NOON, [Rows(table="item_patches", each={"item_id": [7], "fields": [["title"]]})]),
        encode(NOON, [Rows(table="item_patches", each={"item_id": ["b"], "fields": [None]})]),
        patch(NOON, "a", ["title"], title="good"),
    )
    ingest_journal(log, "UTC")
    assert items(log, 1) == [{"item_id": "a", "title": "good"}]
    assert capsys.readouterr().out.count("item_row_skipped") == 3


def test_one_bad_journal_file_does_not_keep_the_items_of_the_others(log) -> None:
    write(log, "s1.journal", patch(NOON, "a", ["title"], title="A"))
    (log.root / FOLDER / "s2.journal").write_bytes(b"no journal")
    with pytest.raises(DataError):
        ingest_journal(log, "UTC")
    assert items(log, 1) == [{"item_id": "a", "title": "A"}]


def test_a_context_value_that_was_text_once_is_text(log) -> None:
    write(
        log, "s1.journal", answer("r1", NOON, hour=3.0), answer("r2", NOON, hour="three"), answer("r3", NOON)
    )
    ingest_journal(log, "UTC")
    assert log.read("requests", date(2026, 3, 1))["context_hour"].to_list() == ["3.0", "three", None]


def test_damage_is_counted_and_the_rest_is_kept(log) -> None:
    records = [answer(f"r{i}", NOON) for i in range(3)]
    broken = bytearray(records[1])
    broken[40] ^= 1
    write(log, "s1.journal", records[0], bytes(broken), records[2])
    summary = ingest_journal(log, "UTC")
    assert summary.damaged_bytes == len(broken)
    assert log.read("requests", date(2026, 3, 1))["request_id"].to_list() == ["r0", "r2"]


def test_a_lost_parquet_file_is_made_again(log) -> None:
    write(log, "s1.journal", answer("r1", NOON))
    ingest_journal(log, "UTC")
    before = parquet(log)
    log.files("requests", date(2026, 3, 1))[0].unlink()
    ingest_journal(log, "UTC")
    assert parquet(log) == before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Rows(table="clicks"), "holds rows of 'clicks'; known tables: requests"),
        (Rows(table="feedback", same={"mood": "good"}), "holds a column 'mood' of feedback"),
        (Rows(table="requests", same={"mood": "good"}), "holds a column 'mood' of requests"),
    ],
)
def test_what_no_table_has_is_refused(log, row, message) -> None:
    write(log, "s1.journal", encode(NOON, [row]))
    with pytest.raises(DataError, match=message):
        ingest_journal(log, "UTC")


def test_no_journal_at_all(tmp_path) -> None:
    assert ingest_journal(InteractionLog(tmp_path), "UTC").num_ingested == 0
