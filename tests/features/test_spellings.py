"""Ids of one file that are written in several ways, and ids that only look so."""

import random
import string

import polars as pl
import pytest

from features import relations
from features.spellings import spelt_twice

APART = ["u1", "17", "1.5", "1.05", "a-b", "ab", "1-23", "12-3", "user7", "item7", "0", "10", "100"]


def found(*ids, rows=1):
    return spelt_twice(pl.DataFrame({"id": ids, "rows": [rows] * len(ids)}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("007", "7"), ("U007", "u7"), ("U9", "u9"), ("7", "7.0"), ("7,0", "7"), ("100000", "1e+05"),
        ("SKU-12", "sku_12"), ("x  y", "x y"), ("x\u00a0y", "x y"), ("'a1'", "a1"), ("{1F2a}", "1f2a"),
        ("caf\u00e9", "cafe\u0301"), ("a1\u200b", "a1"), ("\uff11\uff12", "12"),
        ("https://www.shop.example/p/7/", "http://shop.example/p/7"),
        ("7F3E0A1C-0B2D-4C5E-8F90-A1B2C3D4E5F6", "7f3e0a1c0b2d4c5e8f90a1b2c3d4e5f6"),
    ],
)  # fmt: skip
def test_spellings_of_one_id(one, other):
    told = found(*APART, one, other)
    assert {told.example[0], told.example[2]} == {one, other}
    assert (told.ids, told.several) == (len(APART) + 1, 1)


@pytest.mark.parametrize(
    ("letters", "length"),
    [
        (string.digits + "abcdef", 4),
        (string.ascii_letters + string.digits, 4),
        (string.ascii_letters + string.digits, 2),
    ],
)
def test_random_ids_are_no_spellings(letters, length):
    draw = random.Random(3)
    ids = {"".join(draw.choices(letters, k=length)) for _ in range(2_000)}
    assert found(*APART).example is None
    assert found(*ids).example is None


def test_the_rarer_spellings_count_and_the_widest_split_is_shown():
    rows = {"a": 90, "A": 4, "b1": 3, "B1": 3, "c": 900}
    told = spelt_twice(pl.DataFrame({"id": list(rows), "rows": list(rows.values())}))
    assert (told.ids, told.several, told.rows, told.apart) == (3, 2, 1_000, 7)
    assert told.example == ("a", 90, "A", 4)


@pytest.mark.parametrize(("apart", "size", "severity"), [(30, 1_000, "warning"), (31, 1_000, "error"),
                                                         (31, 999, "warning")])  # fmt: skip
def test_a_share_of_the_rows_stops(apart, size, severity):
    told = spelt_twice(pl.DataFrame({"id": ["7", "007"], "rows": [1_000 - apart, apart]}))
    finding = relations.ids_spelt_twice("users of events", told, size)
    assert finding.severity == severity
    assert f"'7' ({1_000 - apart:,} rows) and '007' ({apart})" in finding.what
    assert (
        relations.ids_spelt_twice("users", spelt_twice(pl.DataFrame({"id": ["7"], "rows": [9]})), 9) is None
    )
