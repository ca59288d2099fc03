"""What a log holds, against counts by hand; it is the same whatever share of the users is looked at."""

from datetime import date

import pytest

from features.sources.mapped import measured
from features.sources.mapped.measured import measure_log

HEADER = "user_id,product_id,event,at,stars"


@pytest.fixture
def facts(bench, events):
    bench.csv(
        "log.csv",
        f"""{HEADER}
        u1,a,view,2026-01-05 10:00:00,
        u1,a,click,2026-01-05 10:00:10,
        u1,a,order,2026-01-05 10:05:00,5
        u1,b,view,2026-01-05 10:00:00,
        u2,a,view,2026-01-05 11:00:00,
        u2,a,click,2026-01-05 11:00:40,
        u1,a,view,2026-01-06 10:00:00,
        u1,a,click,2026-01-06 10:00:20,
        u1,a,order,2026-01-06 10:10:00,3
        u1,c,order,2026-01-06 12:00:00,4
        u2,b,view,2026-01-07 10:00:00,
        u2,b,click,2026-01-07 10:00:05,""",
    )
    return measure_log(bench.convert(events(value="stars")))


def test_kinds_are_counted_with_their_values(facts) -> None:
    click, order = facts.kinds
    assert (click.kind, click.events, click.credited, click.valued) == ("click", 4, 4, 0)
    assert (order.kind, order.events, order.credited, order.valued) == ("purchase", 3, 2, 2)
    assert (order.low, order.high, order.distinct) == (3.0, 5.0, 2)
    assert order.is_value
    assert not click.is_value


def test_delays_repeats_and_what_comes_with_what(facts) -> None:
    click, order = facts.kinds
    assert (click.delay_s, order.delay_s) == (40.0, 600.0)
    assert click.repeats == pytest.approx(1 / 4)
    assert order.repeats == pytest.approx(1 / 3), "c was new, a was bought the day before"
    assert order.implies == {"click": 1.0}
    assert click.implies == {"purchase": 0.5}


def test_days_rates_and_histories(facts) -> None:
    assert facts.daily["date"].to_list() == [date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)]
    assert facts.daily["impressions"].to_list() == [3, 1, 1]
    assert facts.daily["click"].to_list() == [2, 1, 1]
    assert facts.daily["purchase"].to_list() == [1, 1, 0]
    assert facts.rate("purchase") == pytest.approx(2 / 5)
    assert facts.alone, "no request names a list"
    assert facts.history == 5


def test_drawn_items_count_with_what_they_stand_for(bench, events) -> None:
    rows = [f"u{n},i{n % 10},order,2026-01-05 10:00:00," for n in range(20)]
    bench.csv("log.csv", "\n".join([HEADER, *rows]))
    found = measure_log(bench.convert(events(kinds={"order": "order"})))
    assert found.daily["impressions"].sum() == 20 * 5
    # Each user chose one of ten items: nine stand unchosen beside it.
    assert found.rate("order") == pytest.approx(1 / 10)


def test_a_share_of_the_users_tells_the_same(bench, events, monkeypatch) -> None:
    rows = []
    for user in range(40):
        for day in (5, 6):
            rows += [f"u{user},a,view,2026-01-0{day} 10:00:00,", f"u{user},a,click,2026-01-0{day} 10:00:30,"]
    bench.csv("log.csv", "\n".join([HEADER, *rows]))
    log = bench.convert(events())
    whole = measure_log(log)
    monkeypatch.setattr(measured, "SAMPLE_EVENTS", 20)
    read, repeats = [], measured._repeats
    monkeypatch.setattr(
        measured, "_repeats", lambda events: read.append(events["user_id"]) or repeats(events)
    )
    assert measure_log(log).kinds == whole.kinds
    assert 0 < read[0].n_unique() < 40 / 2
    assert whole.kinds[0].repeats == 0.5
