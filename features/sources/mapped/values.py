"""One raw column -> one typed value, as lazy expressions; what does not parse becomes null and is reported.

CSV gives text only; Parquet may give any type, and keeps it where it says what is meant (instants, lists).
"""

from dataclasses import dataclass, replace
from typing import Final

import polars as pl

from features.sources.mapped.files import ScannedFile, reading
from features.sources.mapped.hints import FROM_ZERO, NO_NUMBER, NO_PROBABILITY, NO_TIME, TO_MS, time_format
from features.sources.mapped.mapping import UNITS, Files, FreeColumn, FreeColumns, ItemColumns
from features.sources.mapped.texts import require_exact, text_of
from features.sources.mapped.times import SKIPPED, WrittenTimes, order_forms, placer
from recsys.errors import DataError
from recsys.schema import ATTRIBUTE_PREFIX, EARLIEST, INSTANT, LATEST

_SNIFFED_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Value:
    """A typed expression, and when it is wrong: null although the raw value is there."""

    typed: pl.Expr
    wrong: pl.Expr
    raw: pl.Expr
    reason: pl.Expr


class Reader:
    """Make values of one file's columns: expressions over `frame`, which holds what several of them share."""

    def __init__(self, file: ScannedFile, section: Files, timezone: str) -> None:
        self.file = file
        self.section = section
        self.zone = section.time_zone or timezone
        self._texts: dict[str, pl.Expr] = {}
        self._typed: dict[str, pl.Expr] = {}

    @property
    def frame(self) -> pl.LazyFrame:
        """Give the file's rows with what the values made so far are made of, each computed once."""
        return self.file.frame.with_columns(**self._texts).with_columns(**self._typed)

    def identifier(self, column: str) -> pl.Expr:
        """Give a column of ids as text.

        Raises: DataError when the column's type cannot hold them, naming column and type.
        """
        require_exact(self.file, column)
        return self.text(column)

    def text(self, column: str) -> pl.Expr:
        """Give a column as text without outer spaces; empty is null.

        Raises: DataError when the column's type is no text, naming column and type.
        """
        name = f"__text:{column}"
        if name not in self._texts:
            self._texts[name] = text_of(self.file, column, self.section.nulls)
        return pl.col(name)

    def number(self, column: str) -> Value:
        """Give a column as a finite Float64."""
        cast = self._float(column)
        typed = pl.when(cast.is_finite()).then(cast)
        return self._number(typed, column, NO_NUMBER)

    def place(self, column: str, first: int) -> Value:
        """Give a column of positions, of which the top is `first`, as an Int32 of at least 1."""
        cast = self._float(column)
        typed = pl.when((cast % 1 == 0) & cast.is_between(first, 2**31 - 2)).then(cast + (1 - first))
        hint = f", or from 0 with {FROM_ZERO}" if first else ""
        return self._number(typed.cast(pl.Int32), column, f"is no whole number from {first}{hint}")

    def probability(self, column: str) -> Value:
        """Give a column as a number in (0, 1]."""
        cast = self._float(column)
        typed = pl.when(cast.is_between(0, 1, closed="right")).then(cast)
        return self._number(typed, column, f"{NO_PROBABILITY} in (0, 1]")

    def listed(self, free: FreeColumn) -> pl.Expr:
        """Give a column as a list of text, without empty entries."""
        dtype = self.file.schema[free.column]
        if isinstance(dtype, pl.List | pl.Array):
            if dtype.inner.is_nested() or dtype.inner == pl.Binary:
                raise DataError(_mistyped(self.file, free.column, "list of texts"))
            lists = pl.col(free.column).cast(pl.List(pl.String))
        else:
            lists = self.text(free.column).str.split(free.separator)
        stripped = lists.list.eval(pl.element().str.strip_chars())
        return stripped.list.eval(pl.element().filter(pl.element().is_not_null() & (pl.element() != "")))

    def instant(self, column: str) -> Value:
        """Give a column as a UTC instant, in the section's format and time zone.

        Raises: DataError when the format cannot be told, naming values of the column and what to write.
        """
        name = f"__instant:{column}"
        if name not in self._typed:
            self._typed[name] = self._instant(column).cast(INSTANT)
        typed = pl.col(name)
        plausible = pl.when(typed.is_between(EARLIEST, LATEST, closed="left")).then(typed)
        value = self._value(
            plausible, column, f"{NO_TIME} 1990 to 2099 in the format {self.section.time_format!r}"
        )
        skipped = pl.lit(f"{column} was skipped by the clock change of {self.zone}")
        return replace(value, reason=pl.when(typed == SKIPPED).then(skipped).otherwise(value.reason))

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
            made["price"] = self._number(typed, columns.price, "is no price")
        return made | self.free(columns.attributes, ATTRIBUTE_PREFIX)

    def _value(self, typed: pl.Expr, column: str, reason: str) -> Value:
        raw = self.text(column)
        return Value(typed, typed.is_null() & raw.is_not_null(), raw, pl.lit(f"{column} {reason}"))

    def _number(self, typed: pl.Expr, column: str, reason: str) -> Value:
        value = self._value(typed, column, reason)
        if self.section.decimal == ",":
            return value
        with_comma = pl.when(value.wrong).then(value.raw).str.contains(r"^[+-]?\d*,\d+$")
        hint = pl.lit(f'{column} {reason}; with a decimal comma, say decimal = ","')
        return replace(value, reason=pl.when(with_comma).then(hint).otherwise(value.reason))

    def _float(self, column: str) -> pl.Expr:
        """Give a column as Float64, null where it is none; a decimal comma counts as the mapping says."""
        name = f"__number:{column}"
        if name not in self._typed:
            self._typed[name] = self._cast(column)
        return pl.col(name)

    def _cast(self, column: str) -> pl.Expr:
        dtype, raw = self.file.schema[column], pl.col(column)
        if dtype.is_numeric() or dtype == pl.Boolean:
            return raw.cast(pl.Float64, strict=False)
        if dtype.is_temporal():
            raise DataError(_mistyped(self.file, column, "number"))
        written = self.text(column)
        if self.section.decimal == ",":
            # A point would be a mark of thousands, or the decimal one after all: which of them is not said.
            written = pl.when(~written.str.contains(".", literal=True)).then(
                written.str.replace(",", ".", literal=True)
            )  # fmt: skip
        return written.cast(pl.Float64, strict=False)

    def _instant(self, column: str) -> pl.Expr:
        dtype, form = self.file.schema[column], self.section.time_format
        if dtype in (pl.Time, pl.Duration, pl.Boolean):
            raise DataError(_mistyped(self.file, column, "date and time"))
        if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
            return pl.col(column).cast(INSTANT)
        if isinstance(dtype, pl.Datetime) or dtype == pl.Date:
            return pl.col(column).map_batches(placer(self.zone), return_dtype=INSTANT, is_elementwise=True)
        if form in UNITS:
            milliseconds = self._cast(column) * TO_MS[form]
            whole = pl.when(milliseconds.is_between(-(2**53), 2**53)).then(milliseconds).cast(pl.Int64)
            return pl.from_epoch(whole, time_unit="ms").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
        read = WrittenTimes(self._iso_forms(column) if form == "iso" else [form], self.zone)
        return self.text(column).map_batches(read, return_dtype=INSTANT, is_elementwise=True)

    def _iso_forms(self, column: str) -> list[str]:
        """Order the ISO forms by what reads most of the file's first times."""
        text = text_of(self.file, column, self.section.nulls)
        with reading([self.file]):
            first = self.file.frame.select(text.alias("raw")).drop_nulls().head(_SNIFFED_ROWS).collect()
        texts = first.to_series()
        forms = order_forms(texts)
        if not forms:
            some = ", ".join(map(repr, texts.unique(maintain_order=True).head(3)))
            raise DataError(
                f"{self.file.path}: column {column!r} holds no ISO times: {some}; {time_format(texts[0])}"
            )
        return forms


def _mistyped(file: ScannedFile, column: str, what: str) -> str:
    return f"column {column!r} is of type {file.schema[column]}, which is no {what} (in {file.path.name})"
