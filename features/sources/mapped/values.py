"""One raw column -> one typed value, as lazy expressions; what does not parse becomes null and is reported.

CSV gives text only; Parquet may give any type, and keeps it where it says what is meant (instants, lists).
"""

from dataclasses import dataclass
from typing import Final

import polars as pl

from features.sources.mapped.files import ScannedFile
from features.sources.mapped.mapping import UNITS, Files, FreeColumn, FreeColumns, ItemColumns
from recsys.errors import DataError
from recsys.schema import ATTRIBUTE_PREFIX, EARLIEST, INSTANT, LATEST

_ISO: Final = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
)
_SNIFFED_ROWS: Final = 1_000
_TO_MS: Final = {"s": 1_000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}


@dataclass(frozen=True, slots=True)
class Value:
    """A typed expression, and when it is wrong: null although the raw value is there."""

    typed: pl.Expr
    wrong: pl.Expr
    raw: pl.Expr
    reason: str


class Reader:
    """Make values of one file's columns."""

    def __init__(self, file: ScannedFile, section: Files, timezone: str) -> None:
        self.file = file
        self.section = section
        self.zone = section.time_zone or timezone
        self._formats: dict[str, str] = {}

    def text(self, column: str) -> pl.Expr:
        """Give a column as text without outer spaces; empty is null."""
        dtype = self.file.schema[column]
        raw = pl.col(column)
        if dtype.is_float():  # ids that became floats because some were missing: 17.0 means 17
            raw = pl.when(raw % 1 == 0).then(raw.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(
                raw.cast(pl.String)
            )  # fmt: skip
        stripped = raw.cast(pl.String).str.strip_chars()
        return pl.when(stripped != "").then(stripped)

    def number(self, column: str) -> Value:
        """Give a column as a finite Float64."""
        cast = pl.col(column).cast(pl.Float64, strict=False)
        typed = pl.when(cast.is_finite()).then(cast)
        return self._value(typed, column, "is no number")

    def whole(self, column: str) -> Value:
        """Give a column as an Int32 of at least 1."""
        cast = pl.col(column).cast(pl.Float64, strict=False)
        typed = pl.when((cast % 1 == 0) & cast.is_between(1, 2**31 - 1)).then(cast).cast(pl.Int32)
        return self._value(typed, column, "is no whole number from 1")

    def probability(self, column: str) -> Value:
        """Give a column as a number in (0, 1]."""
        cast = pl.col(column).cast(pl.Float64, strict=False)
        typed = pl.when(cast.is_between(0, 1, closed="right")).then(cast)
        return self._value(typed, column, "is no probability in (0, 1]")

    def listed(self, free: FreeColumn) -> pl.Expr:
        """Give a column as a list of text, without empty entries."""
        if isinstance(self.file.schema[free.column], pl.List):
            lists = pl.col(free.column).cast(pl.List(pl.String))
        else:
            lists = self.text(free.column).str.split(free.separator)
        stripped = lists.list.eval(pl.element().str.strip_chars())
        return stripped.list.eval(pl.element().filter(pl.element().is_not_null() & (pl.element() != "")))

    def instant(self, column: str) -> Value:
        """Give a column as a UTC instant, in the section's format and time zone.

        Raises: DataError when the format cannot be told, naming values of the column and what to write.
        """
        typed = self._instant(column).cast(INSTANT)
        plausible = pl.when(typed.is_between(EARLIEST, LATEST, closed="left")).then(typed)
        return self._value(
            plausible, column, f"is no time of 1990 to 2099 in the format {self._format(column)!r}"
        )

    def free(self, columns: FreeColumns, prefix: str) -> dict[str, pl.Expr | Value]:
        """Give attributes or context columns under their canonical names."""
        made: dict[str, pl.Expr | Value] = {}
        for name, free in columns.items():
            if free.type == "number":
                made[prefix + name] = self.number(free.column)
            else:
                made[prefix + name] = self.listed(free) if free.type == "list" else self.text(free.column)
        return made

    def item(self, columns: ItemColumns) -> dict[str, pl.Expr | Value]:
        """Give what describes an item: those of title, description, category, price, attribute_* it names."""
        named = {"title": columns.title, "description": columns.description, "category": columns.category}
        made: dict[str, pl.Expr | Value] = {k: self.text(c) for k, c in named.items() if c is not None}
        if columns.price is not None:
            price = self.number(columns.price)
            minor = (price.typed * columns.minor_units).round()
            typed = pl.when(minor.is_between(0, 2**53)).then(minor).cast(pl.Int64)
            made["price"] = self._value(typed, columns.price, "is no price")
        return made | self.free(columns.attributes, ATTRIBUTE_PREFIX)

    def _value(self, typed: pl.Expr, column: str, reason: str) -> Value:
        raw = pl.col(column).cast(pl.String).str.strip_chars()
        return Value(typed, typed.is_null() & raw.is_not_null() & (raw != ""), raw, f"{column} {reason}")

    def _instant(self, column: str) -> pl.Expr:
        dtype, form = self.file.schema[column], self._format(column)
        if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
            return pl.col(column).dt.convert_time_zone("UTC")
        if isinstance(dtype, pl.Datetime) or dtype == pl.Date:
            return self._placed(pl.col(column).cast(pl.Datetime("ms")))
        if form in UNITS:
            milliseconds = pl.col(column).cast(pl.Float64, strict=False) * _TO_MS[form]
            whole = pl.when(milliseconds.is_finite()).then(milliseconds).cast(pl.Int64, strict=False)
            return pl.from_epoch(whole, time_unit="ms").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
        parsed = self.text(column).str.to_datetime(form, strict=False, time_unit="ms")
        if any(mark in form for mark in ("%z", "%#z", "%:z", "%+")):
            return parsed.dt.convert_time_zone("UTC")
        if form.endswith(" UTC"):
            return parsed.dt.replace_time_zone("UTC")
        return self._placed(parsed)

    def _placed(self, naive: pl.Expr) -> pl.Expr:
        """Place wall-clock times in the zone: the first of two equal ones; a skipped one is no time."""
        zoned = naive.dt.replace_time_zone(self.zone, ambiguous="earliest", non_existent="null")
        return zoned.dt.convert_time_zone("UTC")

    def _format(self, column: str) -> str:
        if self.section.time_format != "iso" or self.file.schema[column].is_temporal():
            return self.section.time_format
        if column not in self._formats:
            self._formats[column] = self._sniffed(column)
        return self._formats[column]

    def _sniffed(self, column: str) -> str:
        """Find the ISO form that reads most of the file's first times."""
        texts = self.file.frame.select(self.text(column).alias("raw")).drop_nulls().head(_SNIFFED_ROWS)
        raw = texts.collect().to_series()
        if raw.is_empty():
            return _ISO[4]
        read = {form: raw.str.to_datetime(form, strict=False, time_unit="ms").count() for form in _ISO}
        best = max(_ISO, key=lambda form: read[form])
        if read[best]:
            return best
        some = ", ".join(map(repr, raw.unique(maintain_order=True).head(3)))
        raise DataError(f"{self.file.path}: column {column!r} holds no ISO times: {some}; {_suggest(raw[0])}")


def _suggest(value: str) -> str:
    """Guess a number's unit from its digits."""
    digits = value.split(".", maxsplit=1)[0]
    unit = {10: "s", 13: "ms", 16: "us", 19: "ns"}.get(len(digits)) if digits.isdigit() else None
    if unit is not None:
        return f'it looks like time_format = "{unit}"'
    return 'write its time_format: s, ms, us, ns, or a pattern like "%d/%m/%Y %H:%M"'
