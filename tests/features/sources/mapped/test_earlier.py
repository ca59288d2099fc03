"""An event that is on two days is counted once."""

import pytest

HEADER = "user_id,product_id,event,at,nr,got\n"
VIEW = "u,a,view,2026-01-05 10:00:00,,2026-01-05 10:00:00\n"


def kept(bench, events, *lines, **section):
    bench.csv("e.csv", HEADER + VIEW + "\n".join(lines))
    log = bench.convert(events(**section))
    tally = bench.summary.accounting["events"]
    assert tally.adds_up
    return bench.read(log, "feedback").select("user_id", "day").rows(), dict(+tally.repeats), log


def days(rows):
    return [(user, day.day) for user, day in rows]


def test_an_event_sent_again_a_day_later(bench, events):
    lines = [
        "u,a,click,2026-01-05 10:00:09,7,",
        "u,a,click,2026-01-06 10:00:09,7,",
        "u,a,click,2026-01-07 1:00,8,",
    ]
    rows, repeats, _ = kept(bench, events, *lines, event="nr")
    assert days(rows) == [("u", 5), ("u", 7)]
    assert repeats == {"the same event again, on another day": 1}


def test_an_event_received_on_two_days(bench, events):
    line = "u,a,click,2026-01-05 10:00:09,,2026-01-0{} 11:00:00"
    rows, repeats, _ = kept(bench, events, line.format(5), line.format(7), received="got")
    assert days(rows) == [("u", 5)]
    assert repeats == {"the same event again, on another day": 1}


@pytest.mark.parametrize(
    "other",
    ["v,a,click,2026-01-05 10:00:09", "u,b,click,2026-01-05 10:00:09", "u,a,click,2026-01-05 10:00:10"],
    ids=["user", "item", "time"],
)
def test_other_events_received_on_two_days_are_both_kept(bench, events, other):
    lines = ["u,a,click,2026-01-05 10:00:09,,2026-01-05 11:00:00", f"{other},,2026-01-07 11:00:00"]
    rows, repeats, _ = kept(bench, events, *lines, received="got")
    assert [day for _, day in days(rows)] == [5, 7]
    assert not repeats


def test_without_ids_and_receipt_the_same_again_is_another_event(bench, events):
    lines = ["u,a,click,2026-01-05 10:00:09,7,", "u,a,click,2026-01-06 10:00:09,7,"]
    rows, repeats, _ = kept(bench, events, *lines)
    assert days(rows) == [("u", 5), ("u", 6)]
    assert not repeats


def test_a_number_that_starts_again_each_day_is_told(bench, events):
    lines = ["u,a,click,2026-01-05 10:00:09,7,", "v,a,click,2026-01-06 10:00:09,7,"]
    rows, repeats, _ = kept(bench, events, *lines, event="nr")
    assert days(rows) == [("u", 5)]
    assert repeats == {"the event id of another user, item or kind": 1}
    found = next(f for f in bench.summary.findings if f.code == "event_id_not_unique")
    assert "'7' of 'u a click' and 'v a click'" in found.what


@pytest.mark.parametrize(("event", "impressions"), [("nr", 1), (None, 2)])
def test_an_event_that_is_an_impression_too_is_shown_once(bench, events, event, impressions):
    lines = ["u,a,click,2026-01-05 10:00:09,7,", "u,a,click,2026-01-06 10:00:09,7,"]
    bench.csv("e.csv", HEADER + "\n".join(lines))
    log = bench.convert({**events(kinds={"click": "click"}, event=event), "negatives": {"per_positive": 0}})
    assert bench.read(log, "impressions").height == impressions
    assert bench.read(log, "feedback").height == impressions
