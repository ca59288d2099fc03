"""Every row of every file has one end, and the ends are counted by reason."""

import json

import pytest

from features.sources.mapped.side import EARLIER, OTHER, SAME
from features.sources.summary_table import print_summary
from recsys.errors import DataError

HEADER = "user_id,product_id,event,at"
KINDS = {"view": "impression", "click": "click", "ping": "ignore", "idle": "ignore"}
LOG = f"""
    {HEADER}
    u,a,view,2026-01-05 10:00:00
    u,a,view,2026-01-05 10:00:00
    u,b,view,2026-01-05 11:00:00
    u,a,click,2026-01-05 10:00:05
    u,a,click,2026-01-05 10:00:05
    u,,ping,
    u,a,ping,2026-01-05 10:00:05
    u,a,idle,2026-01-05 10:00:05
    u,,view,2026-01-05 10:00:05
    u,a,view,2031-01-05 10:00:05
"""


def tally(bench, table):
    counts = bench.summary.accounting[table]
    assert counts.adds_up, counts
    return counts.to_json()


def test_each_row_of_an_events_file_is_counted_once(bench, events):
    bench.csv("log.csv", LOG)
    log = bench.convert({**events(kinds=KINDS, tolerate=0.5), "last_day": "2026-12-31"})
    expected = {
        "read": 10,
        "kept": 3,
        "repeats": {"same user, item, time and place": 1, "the same event again": 1},
        "quarantined": {"no item": 1, "outside first_day to last_day": 1},
        "ignored": {"kind 'ping'": 2, "kind 'idle'": 1},
    }
    assert tally(bench, "events") == expected
    written = json.loads((log.root / "conversion.csv.json").read_text())
    assert written["accounting"]["events"] == expected
    assert written["rows"]["impressions"] + written["rows"]["feedback"] == 3
    assert written["findings"] == []


def test_what_is_printed_is_what_is_written(bench, events, capsys):
    bench.csv("log.csv", LOG)
    log = bench.convert({**events(kinds=KINDS, tolerate=0.5), "last_day": "2026-12-31"})
    print_summary(bench.summary, log.root)
    said = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    for line in (
        "events · read 10",
        "events · kept 3",
        "events · repeats: the same event again 1",
        "events · quarantined: no item 1",
        "events · ignored: kind 'ping' 2",
    ):
        assert line.split() in said, line


def test_a_kind_that_makes_an_impression_is_one_row(bench, events):
    bench.csv("log.csv", LOG)
    bench.convert({**events(kinds={**KINDS, "view": "view"}, tolerate=0.5), "last_day": "2026-12-31"})
    counted = tally(bench, "events")
    assert (counted["read"], counted["kept"]) == (10, 3)
    assert counted["repeats"] == {"the same event again": 2}


def test_files_of_their_own_are_counted_apart(bench):
    bench.csv("shown.csv", "user,item,at\nu,a,2026-01-05\nu,a,2026-01-05\nu,b,2026-01-05\n")
    bench.csv("clicks.csv", "user,item,at\nu,a,2026-01-05\nu,,2026-01-05\n")
    timed = {"user": "user", "item": "item", "time": "at", "tolerate": 0.5}
    bench.convert(
        {
            "impressions": {"files": "shown.csv", **timed},
            "feedback": {"files": "clicks.csv", "only_kind": "click", **timed},
        }
    )
    assert (tally(bench, "impressions")["read"], tally(bench, "impressions")["kept"]) == (3, 2)
    assert (tally(bench, "feedback")["read"], tally(bench, "feedback")["kept"]) == (2, 1)


def test_a_file_of_clicks_alone(bench):
    bench.csv("clicks.csv", "user,item,at\nu,a,2026-01-05\nu,,2026-01-05\nu,a,2026-01-05\nu,b,2026-01-05\n")
    timed = {"user": "user", "item": "item", "time": "at", "tolerate": 0.5}
    bench.convert({"feedback": {"files": "clicks.csv", "only_kind": "click", **timed}})
    assert list(bench.summary.accounting) == ["feedback"]
    assert (tally(bench, "feedback")["read"], tally(bench, "feedback")["kept"]) == (4, 2)


def test_denominators_are_rows_of_the_file(bench, events):
    bench.csv("log.csv", LOG)
    with pytest.raises(DataError, match="1 of 10 rows"):
        bench.convert({**events(kinds={**KINDS, "view": "view"}), "last_day": "2026-12-31"})


def test_side_tables_count_repeated_keys_and_say_how_many_differ(bench, events):
    bench.csv("log.csv", LOG)
    bench.csv("items.csv", "id,name,price\na,A,1\na,A,1\na,B,1\nb,B,\nb,B,\nc,C,cheap\n")
    items = {"files": "items.csv", "id": "id", "title": "name", "price": "price", "tolerate": 0.5}
    log = bench.convert({**events(files="log.csv", kinds=KINDS, tolerate=0.5), "items": items})
    assert tally(bench, "items") == {
        "read": 6,
        "kept": 2,
        "repeats": {SAME: 1, OTHER: 2},
        "quarantined": {"price is no price": 1},
        "ignored": {},
    }
    assert bench.read(log, "items").filter(item_id="a")["title"].to_list() == ["B"]
    assert (log.root / "quarantine" / "csv.parquet").is_file()


def test_states_of_one_day_are_no_repeats_by_mistake(bench, events):
    bench.csv("log.csv", LOG)
    bench.csv(
        "users.csv",
        "id,land,since\nu,de,2026-01-05 12:00:00\nu,at,2026-01-05 09:00:00\nu,ch,2026-01-06 09:00:00\n",
    )
    land = {"country": "land"}
    users = {"files": "users.csv", "id": "id", "known_from": "since", "attributes": land}
    log = bench.convert({**events(files="log.csv", kinds=KINDS, tolerate=0.5), "users": users})
    assert tally(bench, "users")["repeats"] == {EARLIER: 1}
    known = bench.read(log, "users").sort("day")["attribute_country"].to_list()
    assert known[-2:] == ["de", "ch"], "of one day the latest state holds, wherever it stands in the file"


def test_feedback_received_a_little_before_it_happened_is_kept(bench, events):
    bench.csv(
        "log.csv",
        f"""
        {HEADER},got
        u,a,view,2026-01-05 10:00:00,2026-01-05 09:00:00
        u,a,click,2026-01-06 00:00:01,2026-01-05 23:59:59
    """,
    )
    log = bench.convert(events(received="got"))
    done = bench.read(log, "feedback")
    assert (done["received_at"] == done["occurred_at"]).all()
    assert [str(day) for day in done["day"]] == ["2026-01-06"]
    assert sum(n for note, n in bench.summary.notes.items() if "clocks" in note) == 1


def test_feedback_received_long_before_it_happened_obeys_tolerate(bench, events):
    bench.csv(
        "log.csv",
        f"""
        {HEADER},got
        u,a,view,2026-01-05 10:00:00,2026-01-05 10:00:00
        u,a,click,2026-01-05 10:00:00,2026-01-05 09:00:00
        u,a,click,2026-01-05 11:00:00,2026-01-05 11:00:00
    """,
    )
    with pytest.raises(DataError) as caught:
        bench.convert(events(received="got"))
    said = str(caught.value)
    assert "1 of 3 rows of [events]" in said
    assert "received before it happened: 1 rows (row 2 of log.csv" in said
    assert "received 2026-01-05 09:00:00" in said
    assert "happened 2026-01-05 10:00:00" in said
    bench.convert(events(received="got", tolerate=0.5))
    assert tally(bench, "events")["quarantined"] == {"received before it happened": 1}
