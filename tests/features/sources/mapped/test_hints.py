"""What could not be read tells what to write in the mapping."""

import polars as pl
import pytest

from features.sources.mapped.hints import remedy, time_format, unit_of
from features.sources.mapped.mapping import Files
from recsys.errors import DataError

BAD_TIME = "at is no time of 1990 to 2099 in the format 's'"


def told(values, total, reason=BAD_TIME, form="s"):
    unread = pl.DataFrame({"reason": [reason] * len(values), "value_read": values})
    return remedy(unread, total, Files(time_format=form))


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        ("1767225600", "s"), ("1767225600.25", "s"), ("1767225600000", "ms"), ("1.7672256e12", "ms"),
        ("1767225600000000", "us"), ("1767225600000000000", "ns"), ("0", None), ("46023", None), ("x", None),
    ],
)  # fmt: skip
def test_the_unit_of_an_instant(value, unit):
    assert unit_of(value) == unit


@pytest.mark.parametrize(
    ("value", "said"),
    [("1767225600000", 'time_format = "ms"'), ("46023.5", "spreadsheet"), ("01/02/26", "%d/%m/%Y")],
)
def test_a_first_value_suggests_a_format(value, said):
    assert said in time_format(value)


def test_a_column_of_another_unit_names_it():
    said = told(["1767225600000", "1767225700000"], total=2)
    assert said == 'these are milliseconds since 1970: say time_format = "ms" in the mapping'
    assert "other rows are in time_format = 's': write all in one way" in told(["1767225600000"], total=9)
    assert "tolerate" not in said


def test_values_of_no_one_unit_are_let_go():
    assert told(["1767225600000", "x"], total=100).startswith(
        "right the files or the mapping, or let them go to quarantine with tolerate = 0.05"
    )
    assert "tolerate" not in told(["x"], total=2)


@pytest.mark.parametrize(("values", "total", "cured"), [(["0"] * 5, 20, True), (["0", "-1", "-2"], 20, False),
                                                        (["0"], 200, False)])  # fmt: skip
def test_top_positions_that_are_0_are_no_noise(values, total, cured):
    said = told(values, total, "rank is no whole number from 1, or from 0 with first_position = 0")
    assert ("say first_position = 0" in said) is cured
    assert ("tolerate" in said) is not cured


def test_other_rows_keep_their_remedy():
    reasons = [BAD_TIME, "no item"]
    unread = pl.DataFrame({"reason": reasons, "value_read": ["1767225600000", None]})
    said = remedy(unread, 1, Files(time_format="s"))
    assert 'time_format = "ms"' in told(["1767225600000"], total=1)
    assert "; for the others, right the files" in said


def test_a_files_message_ends_with_the_remedy(bench, events):
    bench.csv("e.csv", "user_id,product_id,event,at\nu,a,view,1767225600000\nu,a,click,1767225601000")
    with pytest.raises(DataError, match=r'say time_format = "ms" in the mapping$'):
        bench.convert(events(time_format="s"))
    bench.csv("items.csv", "id,since\na,1767225600000")
    items = {"files": "items.csv", "id": "id", "known_from": "since", "time_format": "s"}
    mapping = {**events(files="e.csv", time_format="ms"), "items": items}
    with pytest.raises(DataError, match=r'say time_format = "ms" in the mapping$'):
        bench.convert(mapping)


@pytest.mark.parametrize(
    ("value", "reason", "said"),
    [
        ("1,234.5", "v is no number", "marks of thousands"),
        ("EUR 3.50", "v is no number", "without currencies"),
        ("x", "v is no number", "right the files"),
        ("3,5", "v is no number; with a decimal comma", "right the"),
        ("35", "p is no probability in (0, 1]", "percent"),
        ("-1", "p is no probability in (0, 1]", "right the"),
        ("high", "p is no probability in (0, 1]", "right the"),
    ],
)
def test_numbers_as_people_write_them(value, reason, said):
    assert said in told([value], 1, reason)
