"""Ids of every column type that Parquet has: told as a person would write them, or refused by name."""

import uuid
from datetime import date, datetime, time, timedelta

import polars as pl
import pytest

from recsys.errors import DataError

AT = [datetime(2026, 1, 5, 10, minute) for minute in range(4)]
UUIDS = [uuid.UUID(int=(7 << 120) + (0xB << 60) + n) for n in range(3)]


def table(users: pl.Series, **columns: pl.Series) -> pl.DataFrame:
    """Give three views and a click, of these users."""
    frame = pl.DataFrame({"user_id": users, "product_id": list("abca"), "at": AT})
    return frame.with_columns(event=pl.Series(["view"] * 3 + ["click"])).with_columns(**columns)


def convert(bench, mapping, frame):
    bench.src.mkdir(exist_ok=True)
    frame.write_parquet(bench.src / "x.parquet")
    return bench.convert(mapping, form="parquet")


def users(bench, log):
    return bench.read(log, "impressions").sort("shown_at")["user_id"].to_list()


@pytest.mark.parametrize(
    ("values", "dtype", "told"),
    [
        ([1, 2, 3, 1], pl.Int8, ["1", "2", "3"]),
        ([2**64 - 1, 2**63, 3, 3], pl.UInt64, ["18446744073709551615", "9223372036854775808", "3"]),
        ([2**70, -5, 3, 3], pl.Int128, ["1180591620717411303424", "-5", "3"]),
        ([1.0, 2.0**53 - 1, -3.0, 1.0], pl.Float64, ["1", "9007199254740991", "-3"]),
        ([1.0, 2.5, 16777215.0, 1.0], pl.Float32, ["1", "2.5", "16777215"]),
        ([True, False, True, True], pl.Boolean, ["true", "false", "true"]),
        (["x", "y", "x", "x"], pl.Categorical, ["x", "y", "x"]),
        (["x", "y", "x", "x"], pl.Enum(["y", "x"]), ["x", "y", "x"]),
        ([u.bytes for u in (*UUIDS, UUIDS[0])], pl.Binary, [str(u) for u in UUIDS]),
        ([b"anna", "zoë".encode(), b" bob ", b"anna"], pl.Binary, ["anna", "zoë", "bob"]),
        ([b"\xff\x00\x01", b"ab", b"c", b"c"], pl.Binary, ["ff0001", "6162", "63"]),
        ([date(2026, 1, 5)] * 4, pl.Date, ["2026-01-05"] * 3),
    ],
)
def test_ids_of_any_type(bench, events, values, dtype, told):
    log = convert(bench, events(), table(pl.Series(values, dtype=dtype)))
    assert users(bench, log) == told


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["17.00", "2.50", "100.00", "17.00"], pl.Decimal(18, 2)),
        (["17", "25", "100", "17"], pl.Decimal(38, 0)),
    ],
)
def test_decimals_lose_their_zeros_and_nothing_else(bench, events, values, dtype):
    log = convert(bench, events(), table(pl.Series(values).cast(dtype)))
    assert users(bench, log) == ["17", "2.5" if dtype.scale else "25", "100"]


def test_bytes_that_stop_being_text_late_are_told_in_hexadecimal(bench, events, monkeypatch):
    monkeypatch.setattr("features.sources.mapped.texts._SNIFFED_ROWS", 2)
    log = convert(bench, events(), table(pl.Series([b"a", b"b", b"\xff", b"a"])))
    assert users(bench, log) == ["a", "b", "ff"]


@pytest.mark.parametrize(
    "nobody",
    [
        pl.Series([1.0, float("nan"), None, 1.0]),
        pl.Series([1.0, float("nan"), None, 1.0], dtype=pl.Float32),
        pl.Series(["1", "nan", "None", "1"]),
        pl.Series(["1", " ", "NULL", "1"], dtype=pl.Categorical),
        pl.Series([b"1", b"", None, b"1"]),
    ],
)
def test_nobody_is_nobody_and_not_a_user_called_nan(bench, events, nobody):
    frame = table(nobody)
    with pytest.raises(DataError, match="no user: 2 rows"):
        convert(bench, events(), frame)
    log = convert(bench, events(session="sid"), frame.with_columns(sid=pl.Series([None, "s1", "s2", None])))
    assert users(bench, log) == ["1", "s1", "s2"]


@pytest.mark.parametrize(
    ("values", "dtype", "shown"),
    [
        ([1.0, 1e17, 2.0, 1.0], pl.Float64, "1e+17"),
        ([1.0, -(2.0**53), 2.0, 1.0], pl.Float64, "9007199254740992"),
        ([1.0, float("inf"), 2.0, 1.0], pl.Float64, "inf"),
        ([1.0, 2.0**24, float("nan"), 1.0], pl.Float32, "16777216"),
    ],
)
def test_floats_that_lost_digits_are_refused_whatever_is_tolerated(bench, events, values, dtype, shown):
    with pytest.raises(DataError, match="digits") as caught:
        convert(bench, events(tolerate=0.9), table(pl.Series(values, dtype=dtype)))
    assert f"column 'user_id' is of type {dtype}" in str(caught.value)
    assert shown in str(caught.value)


NESTED = pl.Series([[1], [2], [3], [1]])


@pytest.mark.parametrize(
    ("changes", "columns", "said"),
    [
        ({}, {"user_id": NESTED}, "column 'user_id' is of type List(Int64)"),
        ({}, {"user_id": pl.Series([{"a": 1}] * 4)}, "column 'user_id' is of type Struct"),
        ({}, {"product_id": pl.Series([timedelta(1)] * 4)}, "column 'product_id' is of type Duration"),
        ({}, {"event": NESTED}, "column 'event' is of type List(Int64)"),
        ({}, {"at": pl.Series([time(1)] * 4)}, "column 'at' is of type Time, which is no date and time"),
        ({}, {"at": pl.Series([True] * 4)}, "column 'at' is of type Boolean"),
        ({"position": "x"}, {"x": pl.Series(AT)}, "column 'x' is of type Datetime"),
        ({"value": "x"}, {"x": NESTED}, "column 'x' is of type List(Int64)"),
        (
            {"item_columns": {"attributes": {"tags": {"column": "x", "type": "list"}}}},
            {"x": pl.Series([[[1]]] * 4)},
            "column 'x' is of type List(List(Int64)), which is no list of texts",
        ),
    ],
)
def test_other_types_are_refused_by_column_and_type(bench, events, changes, columns, said):
    with pytest.raises(DataError) as caught:
        convert(bench, events(**changes), table(pl.Series([1, 2, 3, 1]), **columns))
    assert said in str(caught.value)
    assert "cannot be read" not in str(caught.value)


def test_kinds_may_be_numbers_booleans_or_categories(bench, events):
    for clicked, kinds in (
        (pl.Series([0, 0, 0, 1]), {"0": "impression", "1": "click"}),
        (pl.Series([0.0, 0.0, 0.0, 1.0]), {"0": "impression", "1": "click"}),
        (pl.Series([False, False, False, True]), {"false": "impression", "true": "click"}),
        (pl.Series(["v", "v", "v", "c"], dtype=pl.Categorical), {"v": "impression", "c": "click"}),
    ):
        log = convert(bench, events(kinds=kinds), table(pl.Series([1, 2, 3, 1]), event=clicked))
        assert bench.read(log, "feedback")["kind"].to_list() == ["click"]


def test_numbers_of_any_type(bench, events):
    for written in (
        pl.Series([2, 1, 3, None], dtype=pl.UInt8),
        pl.Series([2.0, 1.0, 3.0, float("nan")]),
        pl.Series(["2", "1", "3", ""], dtype=pl.Categorical),
        pl.Series([b"2", b"1", b"3", None]),
        pl.Series(["2", "1", "3", None]).cast(pl.Decimal(5, 2)),
    ):
        log = convert(bench, events(position="x"), table(pl.Series([1, 2, 3, 1]), x=written))
        assert bench.read(log, "impressions").sort("shown_at")["position"].to_list() == [2, 1, 3]


def test_instants_far_outside_the_calendar_are_rows_that_cannot_be_read(bench, events):
    wild = pl.Series([2**62, -(2**62), 1767607200000000, 1767607200000000])
    for typed in (wild.cast(pl.Datetime("us")), wild.cast(pl.Datetime("us", "Europe/Berlin"))):
        with pytest.raises(DataError, match=r"no time of 1990 to 2099.*2 rows.*'4611686018427387904'"):
            convert(bench, events(time_zone="Europe/Berlin"), table(pl.Series([1, 2, 3, 1]), at=typed))


def test_what_another_writer_calls_uuid_and_interval(bench, events):
    duckdb = pytest.importorskip("duckdb", reason="a writer of UUID and interval columns")
    bench.src.mkdir()
    at = "timestamp '2026-01-05 10:00:00' + to_minutes(n)"
    kind = "case when n = 3 then 'click' else 'view' end"
    users = "uuid '07000000-0000-5000-8000-00000000000a'"
    query = (
        f"select {users} user_id, n::hugeint product_id, {kind} event, {at} as moment, to_minutes(n) spent"
    )
    duckdb.sql(f"copy ({query} from range(4) t(n)) to '{bench.src}/x.parquet'")
    log = bench.convert(events(time="moment"), form="parquet")
    assert users.split("'")[1] == bench.read(log, "impressions")["user_id"][0]
    with pytest.raises(DataError, match="column 'spent' is of type Struct"):
        bench.convert(events(time="moment", value="spent"), form="parquet")
