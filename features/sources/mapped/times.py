"""Written times -> UTC instants: each value by itself, with or without a zone, or a time of day."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import polars as pl

from recsys.log import period_end
from recsys.schema import INSTANT

SKIPPED: Final = datetime(1, 1, 1, tzinfo=UTC)
"""Stands for a wall-clock time that the clocks of its zone skipped."""
ISO: Final = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%d %H:%M%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
)
_ZONE_MARKS: Final = ("%z", "%#z", "%:z", "%+")
# Far outside what a log holds: beyond it, zones are not defined.
_FIRST, _LAST = datetime(1900, 1, 1), datetime(2200, 1, 1)


@dataclass(frozen=True, slots=True)
class WrittenTimes:
    """Read texts in one of several forms: the first one as a column, what it does not read in the others."""

    forms: Sequence[str]
    zone: str
    """Of times written without one."""

    def __call__(self, texts: pl.Series) -> pl.Series:
        """Give instants; null where no form reads a text, `SKIPPED` where the clocks skipped it."""
        found = _read(texts, self.forms[0], self.zone)
        for form in self.forms if len(self.forms) > 1 else ():
            left = (found.is_null() & texts.is_not_null()).arg_true()
            if left.is_empty():
                break
            found = found.scatter(left, _read(_with_points(texts.gather(left)), form, self.zone))
        return found


def order_forms(texts: pl.Series) -> list[str]:
    """Give the ISO forms, the one that reads most of some texts first; none where no form reads any."""
    texts = _with_points(texts)
    read = {form: texts.str.to_datetime(form, strict=False, time_unit="ms").count() for form in ISO}
    best = max(ISO, key=lambda form: read[form])
    return [best, *(form for form in ISO if form != best)] if read[best] or texts.is_empty() else []


def _with_points(texts: pl.Series) -> pl.Series:
    """Write fractions of a second with a point: ISO 8601, and Python's logging, also know the comma."""
    return texts.str.replace(",", ".", literal=True)


def placer(zone: str) -> Callable[[pl.Series], pl.Series]:
    """Give what places wall-clock times in a zone."""
    return lambda naive: place(naive, zone)


def place(naive: pl.Series, zone: str) -> pl.Series:
    """Place wall-clock times in a zone: the first of two equal ones, `SKIPPED` for a skipped one.

    A midnight that the clocks skipped is a date without a time: the first instant of that day.
    """
    naive = naive.cast(pl.Datetime("ms"))
    naive = naive.set(~naive.is_between(_FIRST, _LAST), None)
    zoned = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    placed = zoned.dt.convert_time_zone("UTC")
    gaps = (placed.is_null() & naive.is_not_null()).arg_true()
    if gaps.is_empty():
        return placed
    skipped = naive.gather(gaps)
    instants = {moment: _first_instant(moment, zone) for moment in skipped.unique().to_list()}
    return placed.scatter(gaps, pl.Series([instants[m] for m in skipped.to_list()], dtype=INSTANT))


def _first_instant(moment: datetime, zone: str) -> datetime:
    day = moment.date()
    first = period_end(day - timedelta(days=1), zone)
    exists = first.astimezone(ZoneInfo(zone)).date() == day
    return first if moment.time() == time() and exists else SKIPPED


def _read(texts: pl.Series, form: str, zone: str) -> pl.Series:
    parsed = texts.str.to_datetime(form, strict=False, time_unit="ms")
    if any(mark in form for mark in _ZONE_MARKS):
        return parsed.dt.convert_time_zone("UTC").cast(INSTANT)
    if form.endswith(" UTC"):
        return parsed.dt.replace_time_zone("UTC")
    return place(parsed, zone)
