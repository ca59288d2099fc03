"""What is printed of a validation: a first night of a long log does not print a page of Sundays."""

from datetime import date, timedelta

from features.validation.findings import Finding, Where
from features.validation.report import Validation

NIGHT = date(2026, 3, 1)


def finding(day: date, code="empty", column=None, value=0.0) -> Finding:
    return Finding(
        code=code, severity="warning", table="impressions", column=column, measured="rows", value=value,
        expected="some", rows=0, remedy="look", where=Where(table="impressions"), day=day,
    )  # fmt: skip


def lines(*findings: Finding) -> list[str]:
    return Validation(date=NIGHT, findings=findings, compared={}, rows={}).lines


def test_many_days_with_the_same_finding_share_a_line() -> None:
    days = [NIGHT - timedelta(7 * n) for n in range(1, 9)]
    said = lines(
        *(finding(day, value=float(n)) for n, day in enumerate(days)), finding(days[0], "nulls", "price")
    )
    assert said == [
        f"8 days from {days[-1]} on, the latest: {finding(days[0]).line}",
        finding(days[0], "nulls", "price").line,
    ]


def test_few_of_them_and_those_of_the_night_have_a_line_each() -> None:
    earlier = [finding(NIGHT - timedelta(n)) for n in (1, 2)]
    own = [finding(NIGHT), finding(NIGHT, "hours")]
    assert lines(*earlier, *own) == [f.line for f in (*earlier, *own)]
    older = [finding(NIGHT - timedelta(n)) for n in (1, 2, 3)]
    assert lines(*older, *own)[1:] == [f.line for f in own]
