"""Days without rows that come each week are told in one line, other ones in another."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from features.validation.closed_days import gather_empty
from features.validation.findings import Finding, Where

FIRST = date(2026, 1, 1)  # a Thursday
DAYS = [FIRST + timedelta(n) for n in range(70)]


def empty(day: date, **changes: object) -> Finding:
    finding = Finding(
        code="empty", severity="warning", table="impressions", measured="usable impressions", value=0,
        expected="some", rows=0, remedy="write it", where=Where(table="impressions"), day=day,
    )  # fmt: skip
    return replace(finding, **changes)  # type: ignore[arg-type]


def gather(closed: set[date], fresh: int = 70, **changes: object) -> list[Finding]:
    findings = [empty(day, **changes) for day in DAYS[-fresh:] if day in closed]
    return gather_empty(findings, {day: day in closed for day in DAYS})


@pytest.fixture
def saturdays() -> set[date]:
    return {day for day in DAYS if day.weekday() == 5}


def test_closed_saturdays_are_one_line_of_information(saturdays):
    (told,) = gather(saturdays)
    assert told.line == (
        "2026-03-07 info [empty] impressions: number of Saturdays without impressions since 2026-01-03 is 10,"
        " expected 0 (0 rows)"
    )
    assert len(told.examples) == 10
    sundays = {day + timedelta(1) for day in saturdays}
    (told,) = gather(saturdays | sundays)
    assert "Saturdays and Sundays without impressions since 2026-01-03 is 20" in told.line


def test_an_ordinary_night_after_a_closed_day_knows_the_weeks_before(saturdays):
    (told,) = gather(saturdays, fresh=6)
    assert (told.severity, told.value, told.day) == ("info", 1, date(2026, 3, 7))


def test_lost_days_stay_warnings_beside_closed_ones(saturdays):
    lost = date(2026, 2, 3)
    found = gather(saturdays | {lost})
    assert [(f.severity, f.value, f.day) for f in found] == [
        ("warning", 0, lost),
        ("info", 10, date(2026, 3, 7)),
    ]
    found = gather(saturdays | {lost, date(2026, 2, 5)})
    assert [(f.severity, f.value) for f in found] == [("warning", 2), ("info", 10)]
    assert "number of days without impressions since 2026-02-03 is 2" in found[0].line
    opened = saturdays - {date(2026, 1, 17)}  # a Saturday with rows: the others are no rule
    (told,) = gather(opened)
    assert (told.severity, told.value) == ("warning", 9)


@pytest.mark.parametrize(
    "changes", [{"severity": "error"}, {"accepted": True}, {"rows": 4}, {"code": "bots"}]
)
def test_what_stops_a_night_or_is_something_else_stays_as_it_is(saturdays, changes):
    assert [f.day for f in gather(saturdays, **changes)] == sorted(saturdays)


def test_periods_that_are_no_days_have_no_weekdays(saturdays):
    (told,) = gather_empty([empty(day) for day in sorted(saturdays)], {})
    assert (told.severity, told.value) == ("warning", 10)
