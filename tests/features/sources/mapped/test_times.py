"""Times as they are written: with a zone, without, without a time of day, and those that the clocks skip."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from features.sources.mapped.times import ISO, SKIPPED, WrittenTimes, order_forms, place
from recsys.errors import DataError

HEADER = "user_id,product_id,event,at"


def read(texts: list[str | None], zone: str = "UTC") -> list[datetime | None]:
    series = pl.Series(texts, dtype=pl.String)
    return WrittenTimes(order_forms(series), zone)(series).to_list()


def test_each_value_is_read_by_itself():
    found = read(
        [
            "2026-01-05 11:00:00",
            "2026-01-05T10:00:00Z",
            "2026-01-05 12:00:00.000+02:00",
            "2026-01-05 12:00:00 +0200",
            "2026-01-05T10:00Z",
            "2026-01-05 10:00:00 UTC",
            "2026-01-05 11:00",
            "2026-01-05 11:00:00,000",
        ],
        "Europe/Berlin",
    )
    assert found == [datetime(2026, 1, 5, 10, tzinfo=UTC)] * 8
    assert read(["2026-01-05 10:00:00,250"] * 2) == [datetime(2026, 1, 5, 10, 0, 0, 250_000, tzinfo=UTC)] * 2
    assert read(["2026-01-05", "soon", None, "2026-01-05T10:00:00Z"]) == [
        datetime(2026, 1, 5, tzinfo=UTC),
        None,
        None,
        datetime(2026, 1, 5, 10, tzinfo=UTC),
    ]


def test_the_form_of_most_values_comes_first_and_none_is_left_out():
    assert order_forms(pl.Series(["2026-01-05", "2026-01-06", "2026-01-05 10:00:00"]))[0] == "%Y-%m-%d"
    assert sorted(order_forms(pl.Series(["2026-01-05"]))) == sorted(ISO)
    assert order_forms(pl.Series(["soon"])) == []
    assert order_forms(pl.Series([], dtype=pl.String))


@pytest.mark.parametrize(
    ("zone", "day", "first"),
    [
        ("Africa/Cairo", date(2026, 4, 24), datetime(2026, 4, 23, 22, tzinfo=UTC)),
        ("Asia/Beirut", date(2026, 3, 29), datetime(2026, 3, 28, 22, tzinfo=UTC)),
        ("America/Santiago", date(2026, 9, 6), datetime(2026, 9, 6, 4, tzinfo=UTC)),
        ("America/Havana", date(2026, 3, 8), datetime(2026, 3, 8, 5, tzinfo=UTC)),
        ("America/Sao_Paulo", date(2018, 11, 4), datetime(2018, 11, 4, 3, tzinfo=UTC)),
        (
            "America/Havana",
            date(2026, 11, 1),
            datetime(2026, 11, 1, 4, tzinfo=UTC),
        ),  # it comes twice
        ("Europe/Berlin", date(2026, 3, 29), datetime(2026, 3, 28, 23, tzinfo=UTC)),
        ("Pacific/Apia", date(2011, 12, 30), SKIPPED),  # the whole day was skipped
    ],
)
def test_a_date_is_the_first_instant_of_its_day(zone, day, first):
    assert place(pl.Series([day]), zone).to_list() == [first]
    assert read([str(day), f"{day} 00:00:00"], zone) == [first, first]


def test_a_time_of_day_that_the_clocks_skipped_is_none():
    assert read(["2026-04-24 00:30:00", "2026-04-24 01:00:00"], "Africa/Cairo") == [
        SKIPPED,
        datetime(2026, 4, 23, 22, tzinfo=UTC),
    ]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_dates_of_a_zone_whose_clocks_jump_at_midnight(bench, events, form):
    days = [f"2026-04-{day}" for day in (23, 24, 25)]
    rows = [f"u,{item},view,{day}" for day in days for item in "ab"] + ["u,a,click,2026-04-24"]
    bench.csv("log.csv", "\n".join([HEADER, *rows]))
    bench.csv("things.csv", "id,since\na,2026-04-24\nb,2026-04-20")
    if form == "parquet":
        for name, column in (("log", "at"), ("things", "since")):
            frame = pl.read_csv(bench.src / f"{name}.csv").with_columns(pl.col(column).str.to_date())
            frame.write_parquet(bench.src / f"{name}.parquet")
    items = {"files": f"things.{form}", "id": "id", "available_from": "since"}
    mapping = {"timezone": "Africa/Cairo", **events(files=f"log.{form}"), "items": items}
    log = bench.convert(mapping, form=form)
    assert [log.read("impressions", date.fromisoformat(day)).height for day in days] == [2, 2, 2]
    assert bench.read(log, "feedback")["impression_id"].null_count() == 0
    since = dict(bench.read(log, "items").sort("day").select("item_id", "available_from").iter_rows())
    assert since["a"] == datetime(2026, 4, 23, 22, tzinfo=UTC)


def test_a_skipped_time_says_so_and_may_be_tolerated(bench, events):
    rows = ["u,a,view,2026-03-29 02:30:00", "u,b,view,2026-03-29 03:30", "u,b,click,2026-03-29 04:00"]
    bench.csv("log.csv", "\n".join([HEADER, *rows]))
    with pytest.raises(DataError, match=r"skipped by the clock change of Europe/Berlin: 1 rows \(row 1"):
        bench.convert(events(time_zone="Europe/Berlin"))
    bench.convert(events(time_zone="Europe/Berlin", tolerate=0.5))
    assert bench.summary.quarantined == {"events: at was skipped by the clock change of Europe/Berlin": 1}


def test_times_with_and_without_a_zone_in_one_column(bench, events):
    zoned = "u,b,view,2026-01-05T12:00:00+02:00\nu,c,view,2026-01-05\nu,a,click,2026-01-05 10:30:00 UTC"
    bench.csv("log.csv", f"{HEADER}\nu,a,view,2026-01-05 11:00:00\n{zoned}")
    log = bench.convert(events(time_zone="Europe/Berlin"))
    shown = bench.read(log, "impressions").sort("item_id")["shown_at"].to_list()
    ten = datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert shown == [ten, ten, datetime(2026, 1, 4, 23, tzinfo=UTC)]
