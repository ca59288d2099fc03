"""Figures of relations, at the edges where they begin to be findings."""

from datetime import date, timedelta

import polars as pl
import pytest

from features import relations
from features.profile.model import Requests

FIRST = date(2026, 1, 1)


def days(**rows):
    """Give rows of days, by days since the first (`d_5=3`; `m_5` is before)."""
    return {FIRST + timedelta(days=int(n[2:]) * (-1 if n[0] == "m" else 1)): r for n, r in rows.items()}


def test_one_request_in_a_thousand_may_have_two_users():
    example = ("1", "anna", "bo")
    assert relations.shared_requests(Requests(requests=1_000, shared=1, example=example), 5_000) is None
    found = relations.shared_requests(Requests(requests=999, shared=1, example=example), 5_000)
    assert found.stops
    assert "1 of 999 (0.1%)" in found.what
    assert "'1' of 'anna' and 'bo'" in found.what
    assert not relations.shared_requests(Requests(requests=999, shared=1, example=example), 999).stops


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("007", "7", True), ("17", "17.0", True), ("U9", "u9", True), ("u9", "u90", False), ("1", "10", False)],
)
def test_a_request_of_one_user_written_two_ways_says_so(one, other, same):
    found = relations.shared_requests(Requests(requests=9, shared=9, example=("r", one, other)), 5_000)
    assert ("written in two ways" in found.remedy) is same


@pytest.mark.parametrize(
    ("listed", "severity"),
    [(100, None), (95, None), (94, "warning"), (50, "warning"), (49, "error"), (0, "error")],
)
def test_how_many_ids_a_file_must_have(listed, severity):
    seen, told = (
        pl.Series([f"a{n}" for n in range(100)]),
        pl.Series([f"a{n}" for n in range(listed)], dtype=pl.String),
    )
    found = relations.unlisted("items", seen, told, rows=1_000)
    assert (found and found.severity) == severity
    if severity:
        assert f"{100 - listed} of 100" in found.what
    small = relations.unlisted("items", seen, told, rows=999)
    assert not (small and small.stops)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ("2", "2.0"), ("2.0", "2"), ("007", "7"), ("7", "007"), ("SKU-1", "sku-1"), ("a1", "'a1'"),
        ("1234567890123456", "1.234567890123456E+15"), ("1234567890123456", "1.23457E+15"),
        ("1234567890123456", "1234567890123450"), ("item_12", "12"), ("12", "P-0012"), ("b-7", "b7"),
        ("{1f-2A}", "1F2a"),
    ],
)  # fmt: skip
def test_two_spellings_of_one_id_are_shown(event, told):
    others = ["x", "y", None]
    found = relations.unlisted("users", pl.Series([event, "zz"]), pl.Series([*others, told]), rows=5)
    assert f"{event!r} of an event may be {told!r} of the file" in found.what


def test_ids_that_have_nothing_in_common():
    found = relations.unlisted("items", pl.Series(["b", "c"]), pl.Series(["x"]), rows=5)
    assert "'b' is not there, which has ids like 'x'" in found.what
    found = relations.unlisted("items", pl.Series(["b"]), pl.Series([], dtype=pl.String), rows=5)
    assert "'b' is not there" in found.what


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (days(d_0=500, d_1=499, m_9497=1), "1 of 1,000 rows lie up to 9,497 days"),
        (days(d_0=500, d_1=499, d_12000=1), "2026-01-01 to 2026-01-02: those of 2058-11-09"),
        (days(d_0=998, m_400=1, d_9999=1), "2 of 1,000 rows lie up to 9,999 days"),
        (days(d_0=998, m_11=1, m_22=1), "2 of 1,000 rows lie up to 11 days"),
        (days(d_0=990, m_400=10), None),  # a hundredth of the rows is no accident
        (days(d_0=500, d_1=499, m_20=1), None),  # ten times the span away
        (days(d_0=500, d_1=499, m_21=1), "21 days"),
        (days(d_0=500, d_364=499, m_3650=1), None),
        (days(d_0=500, d_364=499, m_3651=1), "3,651 days"),
        (days(d_0=1_000), None),
        (days(**{f"d_{n * 30}": 1 for n in range(1_000)}), None),
        (days(d_0=1, d_5=1, **{f"d_{n}": 300 for n in range(9, 20)}), None),
    ],
)
def test_rows_far_from_the_rest(rows, said):
    found = relations.days_apart(rows)
    assert (said in found.what and found.stops) if said else found is None


def test_the_remedy_names_the_bounds():
    found = relations.days_apart(days(d_0=998, m_400=1, d_9999=1))
    assert "first_day = 2026-01-01 and last_day = 2026-01-01" in found.remedy
    assert "last_day" not in relations.days_apart(days(d_0=998, m_400=1)).remedy


def test_a_user_with_more_than_half_of_the_rows():
    assert relations.one_user("u", 0.5, 5_000) is None
    assert relations.one_user("u", 0.9, 999) is None
    assert "'u' has 51%" in relations.one_user("u", 0.51, 1_000).what


SNOWFLAKES = [str(1_700_000_000_123_456_789 + 7_919 * n) for n in range(50)]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["a", "1.23457E+15"], "1 ids in scientific notation, such as '1.23457E+15'"),
        (["1,2e+10"], "scientific"),
        (["17.0", "18.0", "x"], "2 ids written as numbers with .0, such as '17.0'"),
        ([f"{i[:15]}0000" for i in SNOWFLAKES], "50 ids with zeros after 15 digits"),
        (["123456789012345000"], "zeros after 15 digits"),
        (["1.0", "1.1", "2.0"], None),  # sections of a book
        (["1e5", "2E10", "12e45"], None),  # hexadecimal
        (SNOWFLAKES, None),
        ([str(10**15 + 10 * n) for n in range(2)], None),  # by chance
        (["1000000000000000", "2026-01-01", "", "u-1.0.0"], None),
    ],
)
def test_shapes_of_ids(ids, said):
    found = relations.spreadsheet_ids("items", relations.id_shapes(pl.Series(ids)))
    assert (said in found.what and found.severity == "warning") if said else found is None
