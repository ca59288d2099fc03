"""Rows that say nothing: blank lines, and a header that stands again where files were joined."""

from collections.abc import Sequence
from typing import Final

import polars as pl

from features.sources.mapped.files import ROW, ScannedFile, read_columns, reading
from features.sources.mapped.values import Reader

BLANK: Final = "blank line"
HEADER: Final = "the header again"


def left_out(read: Reader, named: Sequence[str]) -> pl.Expr:
    """Say why a row says nothing, null where it says something; `BLANK`: nothing in the columns named."""
    flat = [name for name in named if not read.file.schema[name].is_nested()]
    lists = [pl.col(name).is_null() for name in named if name not in flat]
    blank = pl.all_horizontal(*[read.text(name).is_null() for name in flat], *lists)
    header = pl.all_horizontal(*[read.text(name) == name for name in flat], *lists)
    return pl.when(blank).then(pl.lit(BLANK)).when(header).then(pl.lit(HEADER))


def not_blank(file: ScannedFile, rows: pl.Series) -> pl.Series:
    """Give those of some rows that hold something in a column that the mapping does not name."""
    some = pl.any_horizontal(~_is_empty(file, name) for name in read_columns(file))
    wanted = file.frame.filter(pl.col(ROW).is_in(rows.implode())).filter(some)
    with reading([file]):
        return wanted.select(pl.col(ROW).cast(rows.dtype)).collect(engine="streaming").to_series()


def _is_empty(file: ScannedFile, column: str) -> pl.Expr:
    raw = pl.col(column)
    if file.schema[column] == pl.String:
        return raw.is_null() | (raw.str.strip_chars() == "")
    return raw.is_null() | raw.is_nan() if file.schema[column].is_float() else raw.is_null()
