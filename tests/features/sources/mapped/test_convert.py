"""Mapping variants: what comes out of small files, row by row."""

import gzip
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from features.sources.mapped.mapping import parse_mapping
from features.sources.mapped.suggest import suggest_config
from recsys.config import load_config
from recsys.log import business_day
from recsys.schema import KEYS, PARTITION_INSTANT, TABLES, with_free_columns

HEADER = "user_id,product_id,event,at"
LOG = f"""
    {HEADER}
    u1,a,view,2026-01-05 10:00:00
    u1,b,view,2026-01-05 10:00:00
    u1,a,click,2026-01-05 10:00:05
    u2,a,view,2026-01-05 23:59:00
    u2,a,order,2026-01-06 00:10:00
    u3,c,order,2026-01-06 00:10:00
    u1,a,click,2026-01-06 10:00:06
"""


def check(log, timezone="UTC"):
    """Every partition keeps its schema, its keys and its day."""
    for table in TABLES:
        seen = []
        for day in log.days(table):
            frame = log.read(table, day)
            with_free_columns(table, dict(frame.schema)).validate(frame)
            if table in PARTITION_INSTANT:
                assert frame.select((business_day(PARTITION_INSTANT[table], timezone) == day).all()).item()
                seen.append(frame.select(KEYS[table]))
        assert not seen or not pl.concat(seen).is_duplicated().any(), table


def paired(bench, log):
    """Give (user, kind, impression) of all feedback in the order of time."""
    rows = bench.read(log, "feedback").sort("occurred_at", "user_id")
    return rows.select("user_id", "kind", "impression_id").rows()


def test_logged_impressions_stay_and_nothing_is_added(bench, events):
    bench.csv("log.csv", LOG)
    log = bench.convert(events())
    check(log)
    shown = bench.read(log, "impressions")
    assert shown.select("user_id", "item_id", "sampled", "position").rows() == [
        ("u1", "a", False, 1), ("u1", "b", False, 1), ("u2", "a", False, 1)
    ]  # fmt: skip
    assert shown["propensity_kind"].unique().to_list() == ["unknown"]
    first = "u1-a-1767607200000:1"
    assert paired(bench, log) == [
        ("u1", "click", first),
        ("u2", "purchase", "u2-a-1767657540000:1"),  # across midnight
        ("u3", "purchase", None),  # never shown
        ("u1", "click", None),  # a second more than the window
    ]
    assert bench.summary.notes["feedback: organic, no impression found"] == 2


def test_feedback_at_the_edges_of_the_window(bench, events):
    bench.csv(
        "log.csv",
        f"""
        {HEADER}
        u,a,view,2026-01-05 10:00:00
        u,a,click,2026-01-05 10:00:00
        u,a,order,2026-01-05 10:01:00
        u,a,order,2026-01-05 10:01:01
        u,a,order,2026-01-05 09:59:59
    """,
    )
    log = bench.convert({**events(), "match": {"window": "1m"}})
    found = [i is not None for _, _, i in paired(bench, log)]
    assert found == [False, True, True, False]


def test_the_latest_impression_of_the_same_item_and_user(bench, events):
    bench.csv(
        "log.csv",
        f"""
        {HEADER}
        u,a,view,2026-01-05 10:00:00
        u,a,view,2026-01-05 10:05:00
        u,b,view,2026-01-05 10:06:00
        v,a,view,2026-01-05 10:06:00
        u,a,click,2026-01-05 10:07:00
    """,
    )
    assert paired(bench, bench.convert(events())) == [("u", "click", "u-a-1767607500000:1")]


def test_named_requests_and_impressions_come_first(bench, events):
    bench.csv(
        "log.csv",
        f"""
        {HEADER},req,imp,rank
        u,a,view,2026-01-05 10:00:00,r1,,1
        u,b,view,2026-01-05 10:00:00,r1,,2
        u,a,view,2026-01-05 10:05:00,r2,own,7
        u,a,click,2026-01-05 10:07:00,r1,,
        u,a,order,2026-01-05 10:08:00,r1,own,
        u,b,order,2026-01-09 10:08:00,r1,,
    """,
    )
    log = bench.convert(
        {**events(request="req", impression="imp", position="rank"), "match": {"window": "7d"}}
    )
    check(log)
    shown = bench.read(log, "impressions").sort("shown_at", "position")
    assert shown["impression_id"].to_list() == ["r1:1", "r1:2", "own"]
    assert shown["position"].to_list() == [1, 2, 7]
    assert [i for _, _, i in paired(bench, log)] == ["r1:1", "own", "r1:2"]


def test_a_request_id_that_two_users_share_is_a_request_of_each(bench, events):
    bench.csv(
        "log.csv",
        f"""
        {HEADER},req
        u,a,view,2026-01-05 10:00:00,1
        v,b,view,2026-01-05 10:00:00,1
        v,a,view,2026-01-05 10:00:00,1
        u,a,click,2026-01-07 10:00:00,1
        v,a,click,2026-01-07 10:00:01,1
        w,a,click,2026-01-07 10:00:02,1
    """,
    )
    log = bench.convert({**events(request="req"), "match": {"window": "1m"}})
    shown = bench.read(log, "impressions").sort("user_id", "position")
    columns = ("user_id", "item_id", "impression_id")
    of_u, of_v = "1~@u~@2026-01-05", "1~@v~@2026-01-05"
    assert shown.select(columns).rows() == [
        ("u", "a", f"{of_u}:1"), ("v", "b", f"{of_v}:1"), ("v", "a", f"{of_v}:2")
    ]  # fmt: skip
    assert paired(bench, log) == [
        ("u", "click", f"{of_u}:1"), ("v", "click", f"{of_v}:2"), ("w", "click", None)
    ]  # fmt: skip


def test_a_named_request_is_found_beyond_the_window_and_the_day(bench, events):
    bench.csv(
        "log.csv",
        f"""
        {HEADER},req
        u,a,view,2026-01-05 10:00:00,r1
        u,b,view,2026-01-05 10:00:00,r1
        u,b,click,2026-01-09 10:00:00,r1
        u,b,click,2026-01-09 11:00:00,
    """,
    )
    log = bench.convert({**events(request="req"), "match": {"window": "1m"}})
    assert [i for _, _, i in paired(bench, log)] == ["r1:2", None]


def test_positions_are_the_order_inside_a_request_where_none_are_given(bench, events):
    rows = [f"u,{item},view,2026-01-05 10:00:00,r{n // 2}" for n, item in enumerate("abcd")]
    bench.csv("log.csv", "\n".join([f"{HEADER},req", *rows, "u,a,click,2026-01-05 10:00:00,r0"]))
    shown = bench.read(bench.convert(events(request="req")), "impressions")
    assert dict(shown.select("item_id", "position").rows()) == {"a": 1, "b": 2, "c": 1, "d": 2}


def test_propensities_and_context(bench, events):
    bench.csv(
        "log.csv",
        f"""
        {HEADER},p,device,size,tags
        u,a,view,2026-01-05 10:00:00,0.25,phone,3,x;y
        u,b,view,2026-01-05 10:00:00,,,,
        u,a,click,2026-01-05 10:00:01,,,,
    """,
    )
    context = {
        "device": "device",
        "size": {"column": "size", "type": "number"},
        "tags": {"column": "tags", "type": "list", "separator": ";"},
    }
    shown = bench.read(bench.convert(events(propensity="p", context=context)), "impressions").sort("item_id")
    assert shown.select("propensity", "propensity_kind").rows() == [(0.25, "exact"), (None, "unknown")]
    assert shown.select("context_device", "context_size", "context_tags").rows() == [
        ("phone", 3.0, ["x", "y"]), (None, None, None)
    ]  # fmt: skip


def test_without_impressions_choices_become_them_and_negatives_are_drawn(bench, events):
    rows = [f"u{n % 4},i{n % 20},click,2026-01-{5 + n % 3:02d} 10:{n % 60:02d}:00" for n in range(60)]
    bench.csv(
        "log.csv",
        "\n".join([HEADER, *rows, "u0,i0,order,2026-01-08 10:10:00", "u9,i0,order,2026-01-08 10:30:00"]),
    )
    mapping = events(kinds={"click": "click", "order": "purchase"})
    log = bench.convert({**mapping, "negatives": {"per_positive": 2}})
    check(log)
    shown = bench.read(log, "impressions")
    chosen, drawn = shown.filter(~pl.col("sampled")), shown.filter("sampled")
    assert chosen.height == 60
    assert 60 <= drawn.height <= 120
    assert drawn["sampling_rate"].is_between(0, 1, closed="right").all()
    picked = chosen.select("user_id", "item_id", "day")
    assert drawn.join(picked, on=["user_id", "item_id", "day"]).is_empty(), "no negative was chosen that day"
    moments = chosen.select("user_id", "shown_at").unique()
    assert drawn.join(moments, on=["user_id", "shown_at"], how="anti").is_empty()
    clicks = bench.read(log, "feedback").filter(pl.col("kind") == "click")
    assert clicks.join(chosen, on=["impression_id", "user_id", "item_id"]).height == 60, "each its own"
    orders = bench.read(log, "feedback").filter(pl.col("kind") == "purchase").sort("user_id")
    assert orders["impression_id"].is_null().to_list() == [False, True]
    again = bench.convert({**mapping, "negatives": {"per_positive": 2}})
    assert bench.read(again, "impressions").equals(shown), "the draw is the same every time"
    other = bench.convert({**mapping, "negatives": {"per_positive": 2, "seed": 2}})
    assert not bench.read(other, "impressions").equals(shown)


@pytest.mark.parametrize(
    ("chosen_again", "taken_before", "is_drawn"),
    [
        (False, "auto", False),
        (True, "auto", True),
        (True, "leave_out", False),
        (True, "draw", True),
        (False, "draw", True),
    ],
)
def test_what_was_chosen_before_is_drawn_where_items_are_chosen_again(
    bench, events, chosen_again, taken_before, is_drawn
):
    """Otherwise what a user knows would be chosen for certain. What the mapping says overrules the share."""
    items = [n % 40 if chosen_again else n for n in range(60)]  # the last day's are the first day's
    rows = [f"u{n % 4},i{i},click,2026-01-{5 + n // 20:02d} 10:{n:02d}:00" for n, i in enumerate(items)]
    bench.csv("log.csv", "\n".join([HEADER, *rows]))
    mapping = events(kinds={"click": "click"}) | {"negatives": {"taken_before": taken_before}}
    shown = bench.read(bench.convert(mapping), "impressions")
    chosen = shown.filter(~pl.col("sampled")).select("user_id", "item_id", chosen="day")
    drawn = shown.filter("sampled").join(chosen, on=["user_id", "item_id"])
    assert drawn.filter(pl.col("chosen") < pl.col("day")).is_empty() != is_drawn
    assert drawn.filter(pl.col("chosen") == pl.col("day")).is_empty()
    said = "; ".join(bench.summary.notes)
    assert "taken on an earlier day" in said
    assert ("may be drawn" in said) == is_drawn


def test_drawn_items_stand_in_the_context_of_the_choice(bench, events):
    rows = [f"u,i{n},click,2026-01-05 10:0{n}:00,d{n}" for n in range(5)]
    rows += [f"v,j{n},click,2026-01-05 10:0{n}:00,e{n}" for n in range(5)]
    bench.csv("log.csv", "\n".join([f"{HEADER},device", *rows]))
    shown = bench.read(
        bench.convert(events(kinds={"click": "click"}, context={"device": "device"})), "impressions"
    )
    drawn = shown.filter("sampled")
    assert drawn.height
    assert drawn.join(
        shown.filter(~pl.col("sampled")), on=["user_id", "shown_at", "context_device"]
    ).height == drawn.height, "a missing context would tell the label"  # fmt: skip


def test_kinds_that_open(bench, events):
    bench.csv("log.csv", LOG)
    kinds = {"view": "ignore", "click": "click", "order": "purchase"}
    shown = bench.read(bench.convert(events(kinds=kinds)), "impressions").filter(~pl.col("sampled"))
    assert shown.height == 2, "the first kind opens"
    both = {**events(kinds=kinds), "match": {"opens": ["click", "purchase"]}}
    log = bench.convert(both)
    shown = bench.read(log, "impressions").filter(~pl.col("sampled"))
    assert shown.height == 4
    assert bench.read(log, "feedback")["impression_id"].null_count() == 0


def test_ratings_without_a_kind_column(bench):
    bench.csv("ratings.csv", "userId,movieId,rating,timestamp\n1,10,4.0,1000000000\n2,20,2.5,1000000060")
    mapping = {
        "events": {
            "user": "userId", "item": "movieId", "time": "timestamp", "time_format": "s",
            "only_kind": "rating", "value": "rating",
        }
    }  # fmt: skip
    log = bench.convert(mapping, src=bench.src / "ratings.csv")
    rated = bench.read(log, "feedback")
    assert rated.select("kind", "value").rows() == [("rating", 4.0), ("rating", 2.5)]
    assert rated["impression_id"].null_count() == 0


def test_impressions_and_feedback_in_files_of_their_own(bench):
    bench.csv("shown.csv", "who,what,when\nu,a,2026-01-05T10:00:00Z\nu,b,2026-01-05T10:00:00Z")
    bench.csv("done.csv", "who,what,did,when\nu,a,buy,2026-01-05T11:00:05+01:00")
    timed = {"user": "who", "item": "what", "time": "when"}
    mapping = {
        "impressions": {**timed, "files": "shown.csv"},
        "feedback": {**timed, "files": "done.csv", "kind": "did", "kinds": {"buy": "purchase"}},
    }
    log = bench.convert(mapping)
    check(log)
    assert bench.read(log, "impressions").height == 2
    assert paired(bench, log) == [("u", "purchase", "u-a-1767607200000:1")]


@pytest.mark.parametrize(
    ("written", "settings"),
    [
        ("2026-01-05T10:00:00Z", {}),
        ("2026-01-05T12:00:00.000+02:00", {}),
        ("2026-01-05 10:00:00 UTC", {}),
        ("2026-01-05 10:00", {}),
        ("2026-01-05 11:00:00", {"time_zone": "Europe/Berlin"}),
        ("1767607200", {"time_format": "s"}),
        ("1767607200.0", {"time_format": "s"}),
        ("1767607200000", {"time_format": "ms"}),
        ("1767607200000000", {"time_format": "us"}),
        ("05/01/2026 10:00", {"time_format": "%d/%m/%Y %H:%M"}),
        ("05.01.2026 18:00 +0800", {"time_format": "%d.%m.%Y %H:%M %z"}),
    ],
)
def test_times_in_every_form(bench, events, written, settings):
    bench.csv("log.csv", f"{HEADER}\nu,a,view,{written}\nu,a,click,{written}")
    log = bench.convert(events(**settings))
    expected = datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert bench.read(log, "impressions")["shown_at"].to_list() == [expected]


def test_business_days_are_the_time_zones(bench, events):
    bench.csv("log.csv", f"{HEADER}\nu,a,view,2026-01-05 17:00:00\nu,a,click,2026-01-05 17:00:00")
    log = bench.convert({"timezone": "Asia/Shanghai", **events(time_zone="UTC")})
    check(log, "Asia/Shanghai")
    assert log.days("impressions") == [date(2026, 1, 6)]
    placed = bench.convert({"timezone": "Asia/Shanghai", **events()})
    assert bench.read(placed, "impressions")["shown_at"][0] == datetime(2026, 1, 5, 9, tzinfo=UTC)


def test_feedback_is_filed_under_the_day_it_was_received(bench, events):
    bench.csv(
        "log.csv",
        f"""
        {HEADER},loaded
        u,a,view,2026-01-05 10:00:00,2026-01-05 10:00:00
        u,a,click,2026-01-05 10:01:00,2026-01-08 00:00:00
    """,
    )
    log = bench.convert(events(received="loaded"))
    check(log)
    assert log.days("feedback") == [date(2026, 1, 8)]
    assert log.days("impressions") == [date(2026, 1, 5)]
    assert paired(bench, log)[0][2] is not None, "found by when it happened"


def test_feedback_without_a_time_of_receipt_was_received_when_it_happened(bench, events):
    rows = ["view,2026-01-05 10:00:00,", "click,2026-01-05 10:00:05,", "click,2026-01-05 11:00:00,2026-01-06"]
    bench.csv("log.csv", "\n".join([f"{HEADER},got", *(f"u,a,{row}" for row in rows)]))
    feedback = bench.read(bench.convert(events(received="got")), "feedback").sort("occurred_at")
    assert feedback["day"].to_list() == [date(2026, 1, 5), date(2026, 1, 6)]
    assert feedback["received_at"][0] == feedback["occurred_at"][0]


def test_repeated_rows_count_once(bench, events):
    bench.csv(
        "log.csv",
        f"""
        {HEADER},id
        u,a,view,2026-01-05 10:00:00,e0
        u,a,view,2026-01-05 10:00:00,e1
        u,a,click,2026-01-05 10:00:01,e2
        u,a,click,2026-01-05 10:00:01,e2
        u,a,click,2026-01-05 10:00:01,e3
    """,
    )
    log = bench.convert(events())
    check(log)
    assert bench.read(log, "impressions").height == 1
    assert bench.read(log, "feedback").height == 1
    assert sum(bench.summary.duplicates.values()) == 3
    named = bench.convert(events(event="id"))
    assert bench.read(named, "feedback")["feedback_id"].sort().to_list() == ["e2", "e3"]


def test_some_unreadable_rows_may_go_to_quarantine(bench, events):
    rows = "\n".join(f"u,i{n},view,2026-01-05 10:00:{n:02d}" for n in range(18))
    bench.csv("log.csv", f"{HEADER}\n{rows}\nu,a,click,2026-01-05 10:00:00\nu,a,view,soon")
    log = bench.convert(events(tolerate=0.05))
    assert list(bench.summary.quarantined.values()) == [1]
    kept = pl.read_parquet(log.root / "quarantine" / "csv.parquet")
    assert '"value_read":"soon"' in kept["row"][0]


def test_rows_outside_the_days_are_quarantined(bench, events):
    bench.csv("log.csv", LOG + "u1,a,view,1999-01-01 00:00:00\nu1,a,view,2044-01-01 00:00:00\n")
    log = bench.convert({**events(), "first_day": date(2026, 1, 5), "last_day": date(2026, 1, 6)})
    assert log.days("impressions") == [date(2026, 1, 5)]
    assert bench.summary.quarantined == {"events: outside first_day to last_day": 2}


def test_sessions_stand_in_for_missing_users(bench, events):
    bench.csv(
        "log.csv", f"{HEADER},sid\n,a,view,2026-01-05,s1\nu,b,view,2026-01-05,s2\nu,b,click,2026-01-05,s2"
    )
    shown = bench.read(bench.convert(events(session="sid")), "impressions")
    assert set(shown["user_id"]) == {"s1", "u"}


def test_users_and_items_from_files(bench, events):
    bench.csv("log.csv", LOG)
    bench.csv("users.csv", "id,age,langs\nu1,30,de|en\nu8,,")
    bench.csv("items.csv", """
        sku,name,cat,price,from,until,brand
        a,Apple,fruit,1.99,,,x
        b,Bread,,,2026-01-02,2026-02-01 12:00,
        z,Zoo,,20,2026-01-09,,y
    """)  # fmt: skip
    mapping = {
        **events(files="log.csv"),
        "users": {
            "files": "users.csv", "id": "id",
            "attributes": {
                "age": {"column": "age", "type": "number"}, "langs": {"column": "langs", "type": "list"},
            },
        },
        "items": {
            "files": "items.csv", "id": "sku", "title": "name", "category": "cat", "price": "price",
            "available_from": "from", "attributes": {"brand": "brand"},
        },
    }  # fmt: skip
    log = bench.convert(mapping)
    check(log)
    eve = date(2026, 1, 4)
    users = (
        bench.read(log, "users").sort("user_id").select("user_id", "day", "attribute_age", "attribute_langs")
    )
    assert users.rows() == [
        ("u1", eve, 30.0, ["de", "en"]),
        ("u2", date(2026, 1, 5), None, None),
        ("u3", date(2026, 1, 6), None, None),
        ("u8", eve, None, None),
    ]
    items = bench.read(log, "items").sort("item_id")
    assert items.select("item_id", "day", "title", "price", "attribute_brand").rows() == [
        ("a", eve, "Apple", 199, "x"),
        ("b", eve, "Bread", None, None),
        ("c", date(2026, 1, 6), None, None, None),
        ("z", date(2026, 1, 9), "Zoo", 2000, "y"),
    ]
    assert bench.summary.notes["users: mentioned by events, not in the file"] == 2


def test_rows_that_hold_from_an_instant_on(bench, events):
    bench.csv("log.csv", LOG)
    bench.csv("users.csv", "id,plan,since\nu1,free,2020-01-01\nu1,paid,2026-01-06\nu2,paid,2026-01-06")
    users = {"files": "users.csv", "id": "id", "known_from": "since", "attributes": {"plan": "plan"}}
    log = bench.convert({**events(files="log.csv"), "users": users})
    rows = bench.read(log, "users").sort("user_id", "day").select("user_id", "day", "attribute_plan").rows()
    assert rows == [
        ("u1", date(2026, 1, 4), "free"),
        ("u1", date(2026, 1, 6), "paid"),
        ("u2", date(2026, 1, 5), None),  # seen before the file knows it
        ("u2", date(2026, 1, 6), "paid"),
        ("u3", date(2026, 1, 6), None),
    ]


def test_items_described_by_the_events(bench, events):
    bench.csv(
        "log.csv",
        f"""
        {HEADER},price,brand
        u,a,view,2026-01-05 10:00:00,1.50,x
        u,a,view,2026-01-05 11:00:00,2.00,
        u,b,view,2026-01-05 11:00:00,,
        u,a,view,2026-01-06 11:00:00,2.00,x
        u,a,click,2026-01-07 11:00:00,2.50,x
    """,
    )
    columns = {"price": "price", "attributes": {"brand": "brand"}}
    log = bench.convert(events(item_columns=columns))
    check(log)
    rows = (
        bench.read(log, "items").sort("item_id", "day").select("item_id", "day", "price", "attribute_brand")
    )
    assert rows.rows() == [
        ("a", date(2026, 1, 5), 200, "x"),
        ("a", date(2026, 1, 7), 250, "x"),  # nothing new on the 6th
        ("b", date(2026, 1, 5), None, None),
    ]


def test_one_header_for_many_files_gzipped_and_without_header(bench, events):
    rows = [line.strip() for line in LOG.strip().splitlines()]
    bench.src.mkdir()
    (bench.src / "1.csv.gz").write_bytes(gzip.compress("\n".join(rows[:4]).encode()))
    bench.csv("2.csv", "\n".join([rows[0], *rows[4:]]))
    whole = bench.read(bench.convert(events()), "feedback")
    (bench.src / "1.csv.gz").unlink()
    bench.csv("2.csv", "\n".join(row.replace(",", "\t") for row in rows[1:]))
    bare = bench.convert(events(columns=HEADER.split(","), separator="\t"))
    assert bench.read(bare, "feedback").equals(whole)


def test_parquet_of_native_types_gives_the_same_log(bench, events):
    bench.csv("log.csv", LOG)
    plain = bench.convert(events())
    table = pl.read_csv(bench.src / "log.csv")
    at = pl.col("at").str.to_datetime("%Y-%m-%d %H:%M:%S")
    for name, typed in {
        "naive": at,
        "zoned": at.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"),
        "seconds": at.dt.epoch("s"),
    }.items():
        table.with_columns(typed).write_parquet(bench.src / f"{name}.parquet")
        settings = {"time_format": "s"} if name == "seconds" else {}
        log = bench.convert(events(files=f"{name}.parquet", **settings), form="parquet")
        for kind in ("impressions", "feedback", "users", "items"):
            assert bench.read(log, kind).equals(bench.read(plain, kind)), (name, kind)


def test_identifiers_that_became_floats(bench, events):
    bench.src.mkdir()
    at = datetime(2026, 1, 5, tzinfo=UTC)
    table = pl.DataFrame(
        {
            "user_id": [1.0, 2.0],
            "product_id": [7, 8],
            "event": ["view", "click"],
            "at": [at, at + timedelta(1)],
        }
    )
    table.write_parquet(bench.src / "x.parquet")
    log = bench.convert(events(), form="parquet")
    assert bench.read(log, "impressions").select("user_id", "item_id").rows() == [("1", "7")]


def test_many_days_and_users_a_few_at_a_time(bench, events, monkeypatch):
    monkeypatch.setattr("features.sources.mapped.stored_negatives._ROWS_AT_A_TIME", 50)
    rows = [f"u{n % 30},i{n % 40},click,2026-01-{1 + n % 13:02d} 10:00:00" for n in range(200)]
    bench.csv("log.csv", "\n".join([HEADER, *rows]))
    parted = bench.read(bench.convert(events(kinds={"click": "click"})), "impressions")
    monkeypatch.setattr("features.sources.mapped.stored_negatives._ROWS_AT_A_TIME", 10_000)
    whole = bench.read(bench.convert(events(kinds={"click": "click"})), "impressions")
    assert parted.equals(whole)


def test_the_suggested_config_is_one(bench, events):
    from features.definitions import define_features
    from features.sources.mapped.mapping import parse_mapping
    from features.sources.mapped.suggest import suggest_config

    rows = [f"u{n % 9},i{n % 20},click,2026-01-05 10:0{n // 60}:{n % 60:02d},{n % 5},d" for n in range(300)]
    rows += [row.replace("click", "rate") for row in rows]
    rows += [f"u{n},i{n},watch,2026-01-05 12:00:00,{n % 5 / 4},d" for n in range(150)]
    rows += [f"u{n},i{n},order,2026-01-05 11:00:00,{n}.5,d" for n in range(150)]
    bench.csv("log.csv", "\n".join([f"{HEADER},stars,device", *rows]))
    mapping = events(
        kinds={"click": "click", "rate": "rating", "order": "purchase", "watch": "share"},
        context={"device": "device"},
        value="stars",
    )
    mapping["match"] = {"opens": ["click", "purchase", "share"]}
    log = bench.convert(mapping)
    text = suggest_config(log, parse_mapping(mapping, "MAP")).text
    (bench.root / "config.toml").write_text(text)
    config = load_config(bench.root / "config.toml")
    assert [(t.name, t.head, t.window) for t in config.tasks] == [
        ("click", "regression", 60),
        ("rating", "regression", 60),
        ("purchase", "binary", 60),  # money: many values
        ("share", "regression", 60),
    ]
    assert config.tasks[1].low == 0
    assert config.tasks[1].high == 4
    assert [t.step for t in config.tasks] == [0.5, 0.5, 1.0, 0.01]
    assert not config.model.position_bias
    assert [f.column for f in config.attributes] == ["context_device"]
    assert define_features(config).ids


def test_a_log_written_as_csv_comes_back_as_it_was(bench, shop_log):
    """Round trip of the simulated shop: lists with propensities, feedback found by request."""
    log = shop_log
    shown, done = (pl.concat([log.read(t, d) for d in log.days(t)]) for t in ("impressions", "feedback"))
    bench.src.mkdir()
    at = pl.col("shown_at").dt.to_string("%Y-%m-%dT%H:%M:%S%.3fZ")
    shown.with_columns(at=at).drop("shown_at").write_csv(bench.src / "shown.csv")
    named = done.join(shown.select("impression_id", "request_id"), on="impression_id", how="left")
    instants = [pl.col(c).dt.epoch("ms").alias(c) for c in ("occurred_at", "received_at")]
    named.with_columns(instants).drop("impression_id").write_csv(bench.src / "done.csv")
    who = {"user": "user_id", "item": "item_id", "request": "request_id"}
    kinds = {kind: kind for kind in done["kind"].unique()}
    mapping = {
        "impressions": {
            **who, "files": "shown.csv", "time": "at", "position": "position", "propensity": "propensity",
        },
        "feedback": {
            **who, "files": "done.csv", "time": "occurred_at", "received": "received_at", "time_format": "ms",
            "kind": "kind", "kinds": kinds, "value": "value", "event": "feedback_id",
        },
    }  # fmt: skip
    back = bench.convert(mapping)
    columns = ["impression_id", "request_id", "user_id", "item_id", "shown_at", "position", "propensity"]
    found = bench.read(back, "impressions").select(columns).sort("impression_id")
    assert found.equals(shown.select(columns).sort("impression_id"))
    columns = [c for c in done.columns if c != "merged_from"]
    found = bench.read(back, "feedback").select(columns).sort("feedback_id")
    assert found.equals(done.select(columns).sort("feedback_id"))
    for table in ("impressions", "feedback"):
        assert back.days(table) == log.days(table)


@pytest.mark.parametrize(("view", "head"), [("impression", "click"), ("view", "view")])
def test_a_log_in_a_folder_that_looks_like_a_partition(bench, events, view, head):
    mapping = events(kinds={"view": view, "click": "click", "order": "purchase"})
    bench.root /= "date=2020-01-01"
    bench.root.mkdir()
    bench.csv("e.csv", LOG)
    log = bench.convert(mapping)
    assert f'feedback = "{head}"' in suggest_config(log, parse_mapping(mapping, "MAP")).text
