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
    nothing = pl.all_horizontal(_is_empty(read.file, name) for name in named)
    why = pl.when(nothing).then(pl.lit(BLANK))
    texts = [name for name in named if read.file.schema[name] == pl.String]
    if len(texts) < len(named):
        return why.otherwise(None)
    return why.when(pl.all_horizontal(pl.col(name) == name for name in named)).then(pl.lit(HEADER))


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
