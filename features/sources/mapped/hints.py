"""What to write in the mapping, told from the values that could not be read."""

from typing import Final

import polars as pl

from features.sources.mapped.mapping import UNITS, Files
from recsys.schema import EARLIEST, LATEST

TO_MS: Final = {"s": 1_000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
NO_TIME: Final = "is no time of"
FROM_ZERO: Final = "first_position = 0"
NO_NUMBER: Final = "is no number"
NO_PROBABILITY: Final = "is no probability"
_MARKED: Final = r"^\D{0,4}\d{1,3}([,.' ]\d{3})*([.,]\d+)?\D{0,4}$"
_SPREADSHEET_DAYS: Final = (32_874, 73_051)
"""1990 and 2100 as a spreadsheet counts days."""
_OFTEN: Final = 0.01
"""A top position that is 0 is in one row of each list."""
_MOST: Final = 0.5


def unit_of(value: str) -> str | None:
    """Tell the unit in which a number is an instant of 1990 to 2099 since 1970; None where it is none."""
    number = _number(value)
    low, high = (at.timestamp() * 1_000 for at in (EARLIEST, LATEST))
    return next((unit for unit in UNITS if number is not None and low <= number * TO_MS[unit] < high), None)


def time_format(value: str) -> str:
    """Say which `time_format` reads a value, or what it may be."""
    unit, number = unit_of(value), _number(value)
    if unit is not None:
        return f'it looks like time_format = "{unit}"'
    if number is not None and _SPREADSHEET_DAYS[0] <= number < _SPREADSHEET_DAYS[1]:
        return "it looks like a spreadsheet's number of a day: export the column as dates"
    return 'write its time_format: s, ms, us, ns, or a pattern like "%d/%m/%Y %H:%M"'


def remedy(unread: pl.DataFrame, total: int, section: Files) -> str:
    """Say what to do about rows that cannot be read. Args: unread: reason, value_read; total: rows in all."""
    cures: dict[str, str] = {}
    for (reason,), rows in unread.group_by("reason", maintain_order=True):
        said = _cure(str(reason), rows["value_read"], total, section)
        if said is not None:
            cures[str(reason)] = said
    others = unread.filter(~pl.col("reason").is_in(list(cures)))
    said = "; ".join(dict.fromkeys(cures.values()))
    if not others.height:
        return said
    share = others.height / total
    go = f", or let them go to quarantine with tolerate = {_round_up(share)}" if share < _MOST else ""
    rest = f"{said}; for the others, " if said else ""
    return f"{rest}right the files or the mapping{go}{_times(others['reason'].to_list(), section)}"


def _cure(reason: str, values: pl.Series, total: int, section: Files) -> str | None:
    """Give the one remedy of a reason, where its values show it."""
    if NO_TIME in reason:
        return _other_unit(values, total, section)
    if FROM_ZERO in reason and values.is_in(["0", "0.0"]).sum() > max(_OFTEN * total, _MOST * values.len()):
        return "positions are counted from 0: say first_position = 0 in the mapping"
    if reason.endswith(NO_NUMBER) and values.str.contains(_MARKED).sum() > _MOST * values.len():
        return "write numbers without currencies and marks of thousands"
    if NO_PROBABILITY in reason and total and values.len() > _MOST * total and _percent(values):
        return "these look like percent: write shares of 1"
    return None


def _percent(values: pl.Series) -> bool:
    numbers = values.cast(pl.Float64, strict=False)
    return bool(numbers.is_between(1, 100).fill_null(value=False).all())


def _other_unit(values: pl.Series, total: int, section: Files) -> str | None:
    """Tell that times are in another unit than the mapping says."""
    seen = values.drop_nulls().head(1_000)
    units = {unit for value in seen if (unit := unit_of(value)) is not None}
    if len(units) != 1 or any(unit_of(value) is None for value in seen):
        return None
    (unit,) = units
    if values.len() > _MOST * total:
        return f'these are {_NAMES[unit]} since 1970: say time_format = "{unit}" in the mapping'
    return (
        f"these look like {_NAMES[unit]} since 1970, and other rows are in time_format = "
        f"{section.time_format!r}: write all in one way"
    )


_NAMES: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def _times(reasons: list[str], section: Files) -> str:
    if any("skipped by" in reason for reason in reasons):
        return "; times that the clocks skipped were written in another zone: time_zone says in which"
    if any("no time" in reason for reason in reasons):
        return f"; time_format = {section.time_format!r} and time_zone say how times are written"
    return ""


def _round_up(share: float) -> float:
    return next(step for step in (0.0001, 0.001, 0.01, 0.05, 0.1, 0.5, 1.0) if share <= step)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
