"""Earlier days without rows, told in one line: a shop that is closed on Saturdays is no news each night."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from features.validation.findings import Finding


def gather_empty(findings: Sequence[Finding], is_empty: Mapping[date, bool]) -> list[Finding]:
    """Put the findings of empty days that stop nothing into one line for weekly ones and one for the rest.

    Args: is_empty: of each day that is known, whether it has no impression; none where periods are no days. A
    weekday on which no known day has any, of two or more, is expected to be empty, and only told.
    """
    empty = [f for f in findings if f.code == "empty" and not f.stops and not f.accepted and f.rows == 0]
    by_weekday: dict[int, list[bool]] = {}
    for day, nothing in is_empty.items():
        by_weekday.setdefault(day.weekday(), []).append(nothing)
    closed = {weekday for weekday, known in by_weekday.items() if all(known) and len(known) > 1}
    weekly = [f for f in empty if _day(f).weekday() in closed]
    others = [f for f in empty if f not in weekly]
    kept = [f for f in findings if f not in empty]
    if len(others) > 1:
        others = [_one(others, "days")]
    if weekly:
        first = {_day(f).weekday(): f"{_day(f):%A}s" for f in weekly}
        told = _one(weekly, " and ".join(first[weekday] for weekday in sorted(first)))
        weekly = [replace(told, severity="info" if told.severity == "warning" else told.severity)]
    return [*kept, *others, *weekly]


def _one(empty: Sequence[Finding], what: str) -> Finding:
    days = sorted(map(_day, empty))
    return replace(
        empty[0],
        day=days[-1],
        measured=f"number of {what} without impressions since {days[0]}",
        value=len(days),
        expected="0",
        remedy="nothing to do where the shop was closed: nights pass over such days; else write their log",
        examples=tuple({"day": str(day)} for day in days),
    )


def _day(finding: Finding) -> date:
    assert finding.day is not None
    return finding.day
