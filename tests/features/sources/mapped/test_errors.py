"""Every missing piece has a message that names it, what is there and the remedy; nothing is left behind."""

import polars as pl
import pytest

from recsys.errors import DataError

LOG = """
    user_id,product_id,event,at
    u,a,view,2026-01-05 10:00:00
    u,a,click,2026-01-05 10:00:05
    u,b,view,2026-01-05 11:00:00
"""


def refused(bench, mapping, *parts, **options):
    with pytest.raises(DataError) as caught:
        bench.convert(mapping, **options)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    assert not list(bench.root.glob("log-*")), "nothing is left behind"


def test_no_such_file(bench, events):
    bench.csv("clicks.csv", LOG)
    refused(bench, events(files="events*.csv"), "[events] files = 'events*.csv'", "it has clicks.csv")
    refused(bench, events(), "not found in", "clicks.csv", src=bench.src / "nowhere.csv")
    refused(bench, events(), "no file ending in .parquet", "clicks.csv", form="parquet")
    (bench.root / "empty").mkdir()
    refused(bench, events(), "it has no files", src=bench.root / "empty")
    refused(bench, events(), "is not a folder", src=bench.root / "no folder" / "x.csv")


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [("user", "userid", "user_id"), ("item", "product", "product_id"), ("kind", "Event", "event")],
)
def test_no_such_column_names_the_closest_and_all(bench, events, key, value, meant):
    bench.csv("log.csv", LOG)
    refused(
        bench,
        events(**{key: value}),
        f"no column {value!r}",
        f"did you mean {meant!r}",
        "'product_id', 'event'",
    )


def test_a_column_of_a_side_table(bench, events):
    bench.csv("log.csv", LOG)
    bench.csv("things.csv", "sku,name\na,A")
    mapping = {**events(files="log.csv"), "items": {"files": "things.csv", "id": "sku", "title": "nam"}}
    refused(bench, mapping, "things.csv: no column 'nam'", "[items]", "did you mean 'name'")


def test_unknown_kinds_are_listed_with_counts(bench, events):
    bench.csv("log.csv", LOG + "u,a,clik,2026-01-05 10:00:05\n" * 2 + "u,a,share,2026-01-05 10:00:05\n,,,\n")
    refused(
        bench,
        events(),
        "2 value(s)",
        "'clik': 2 rows; did you mean 'click'?",
        "'share': 1 rows",
        '"ignore"',
    )


def test_times_that_do_not_parse_name_row_and_value(bench, events):
    bench.csv("log.csv", LOG + "u,a,view,yesterday\nu,a,view,2026-13-01 10:00:00\nu,a,view,\n")
    refused(
        bench,
        events(),
        "3 of 6 rows of [events]",
        "row 4 of log.csv: 'yesterday', row 5 of log.csv: '2026-13-01",
        "no time: 1 rows (row 6",
        "time_format",
    )


def test_numbers_as_times_suggest_their_unit(bench, events):
    bench.csv("log.csv", "user_id,product_id,event,at\nu,a,view,1767607200000")
    refused(bench, events(), "'at' holds no ISO times: '1767607200000'", 'time_format = "ms"')
    refused(bench, events(time_format="s"), "no time of 1990 to 2099 in the format 's'")
    bench.csv("log.csv", "user_id,product_id,event,at\nu,a,view,05/01/2026 10:00")
    refused(bench, events(), "'05/01/2026 10:00'", 'a pattern like "%d/%m/%Y %H:%M"')


def test_a_time_that_the_clocks_skipped_is_no_time(bench, events):
    bench.csv("log.csv", "user_id,product_id,event,at\nu,a,view,2026-03-29 02:30:00")
    refused(bench, events(time_zone="Europe/Berlin"), "row 1 of log.csv: '2026-03-29 02:30:00'")


@pytest.mark.parametrize(
    ("changes", "column", "value", "said"),
    [
        ({"value": "x"}, "x", "many", "x is no number"),
        ({"value": "x"}, "x", "inf", "x is no number"),
        ({"position": "x"}, "x", "0", "x is no whole number from 1"),
        ({"position": "x"}, "x", "1.5", "x is no whole number from 1"),
        ({"propensity": "x"}, "x", "1.2", "x is no probability in (0, 1]"),
        ({"item_columns": {"price": "x"}}, "x", "-3", "x is no price"),
        ({"context": {"n": {"column": "x", "type": "number"}}}, "x", "a", "x is no number"),
    ],
)
def test_values_that_do_not_parse(bench, events, changes, column, value, said):
    bench.csv(
        "log.csv",
        f"user_id,product_id,event,at,{column}\nu,a,view,2026-01-05,{value}\nu,a,click,2026-01-05,1",
    )
    refused(bench, events(**changes), "1 of 2 rows", said, f"row 1 of log.csv: '{value}'")


def test_users_and_items_that_are_missing(bench, events):
    bench.csv("log.csv", LOG + ",a,view,2026-01-05 10:00:00\nu, ,view,2026-01-05 10:00:00\n")
    refused(bench, events(), "no user: 1 rows (row 4", "no item: 1 rows (row 5", "tolerate = 0.5")


def test_rows_of_side_tables_that_cannot_be_read(bench, events):
    bench.csv("log.csv", LOG)
    bench.csv("items.csv", "id,price\na,1\nb,cheap\nc,2")
    items = {"files": "items.csv", "id": "id", "price": "price"}
    refused(
        bench,
        {**events(files="log.csv"), "items": items},
        "items.csv: 1 of 3 rows",
        "row 2",
        "'cheap'",
        "tolerate",
    )


def test_files_that_are_no_csv_or_parquet(bench, events):
    bench.csv("log.csv", LOG)
    (bench.src / "more.csv").write_bytes(b"user_id,product_id,event,at\nu,\xe9,view,2026-01-05\n")
    refused(bench, events(), "more.csv cannot be read as csv", "line 2", "0xe9", 'encoding = "latin-1"')
    (bench.src / "x.parquet").write_bytes(b"no parquet")
    refused(bench, events(), "x.parquet cannot be read as parquet", form="parquet")
    bench.csv("more.csv", LOG + "u,a,view,2026-01-05 10:00:00,extra,fields\n")
    refused(bench, events(), "cannot be read as csv", "row 4 has 6 fields", "separator")


def test_names_for_a_file_without_header_must_be_all(bench, events):
    bench.csv("log.csv", "u,a,view,2026-01-05")
    refused(bench, events(columns=["user_id", "product_id", "event"]), "has 4 columns", "names 3")


def test_a_log_without_one_event(bench, events):
    bench.csv("log.csv", "user_id,product_id,event,at")
    refused(bench, events(), "has no row that is an event")


def test_a_failure_half_way_leaves_an_existing_log_alone(bench, events):
    bench.csv("log.csv", LOG)
    log = bench.convert(events())
    before = {p: p.read_bytes() for p in log.root.rglob("*") if p.is_file()}
    bench.csv("log.csv", LOG.replace("click", "clack"))
    bench.made = 0
    with pytest.raises(DataError):
        bench.convert(events())
    assert {p: p.read_bytes() for p in log.root.rglob("*") if p.is_file()} == before


def test_a_list_column_of_parquet_keeps_its_type(bench, events):
    bench.src.mkdir()
    frame = pl.DataFrame({"user_id": [1], "product_id": [2.0], "event": ["click"], "at": ["soon"]})
    frame.write_parquet(bench.src / "x.parquet")
    refused(bench, events(), "'soon'", form="parquet")


def test_a_file_without_a_header_is_told_how_to_name_its_columns(bench, events):
    bench.csv("log.csv", LOG.strip().split("\n", 1)[1])
    refused(
        bench, events(), "no column 'user_id'", "if its first line is a row, name the columns with `columns`"
    )
