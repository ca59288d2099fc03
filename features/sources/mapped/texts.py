"""One raw column of any type -> text: ids, categories, words. What is no text is refused by name."""

import re
from datetime import date
from typing import Final

import polars as pl

from features.sources.mapped.files import ScannedFile, reading
from recsys.errors import DataError

_SNIFFED_ROWS: Final = 1_000
_UUID_BYTES: Final = 16
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1f]")


def text_of(file: ScannedFile, column: str, nulls: tuple[str, ...]) -> pl.Expr:
    """Give a column as text without outer spaces; empty, NaN and `nulls` are null.

    Floats and decimals that are whole read as whole numbers: ids become floats where some are missing, and
    17.0 means 17. 16 bytes are a UUID, other bytes UTF-8 text, or else hexadecimal.
    Raises: DataError for a type that is no text, naming the column and the type.
    """
    dtype, raw = file.schema[column], pl.col(column)
    if dtype.is_nested() or dtype in (pl.Duration, pl.Object, pl.Unknown):
        raise DataError(_refused(file, column, f"is of type {dtype}, which is no id or text"))
    if dtype.is_float():
        return _float_text(raw, dtype)
    if dtype.is_decimal():
        written = raw.cast(pl.String)
        return pl.when(written.str.contains(".", literal=True)).then(
            written.str.replace(r"\.?0*$", "")
        ).otherwise(written)  # fmt: skip
    if dtype in (pl.Datetime, pl.Date):  # years that have no name are shown as the number that is stored
        within = raw.is_between(pl.lit(date(1, 1, 1)), pl.lit(date(9999, 12, 31)))
        return pl.coalesce(pl.when(within).then(raw).cast(pl.String), raw.to_physical().cast(pl.String))
    if dtype == pl.Binary:
        raw = _bytes_text(file, column)
    stripped = raw.cast(pl.String).str.strip_chars()
    absent = ["", *nulls] if dtype in (pl.String, pl.Binary, pl.Categorical, pl.Enum) else [""]
    return pl.when(~stripped.is_in(absent)).then(stripped)


def require_exact(file: ScannedFile, column: str) -> None:
    """Check that a column of ids that are floats has not lost digits.

    Raises: DataError naming the column, its type and a value.
    """
    dtype = file.schema[column]
    if not dtype.is_float():
        return
    limit = _exact_below(dtype)
    large = file.frame.select(pl.col(column).abs().alias("size")).filter(~pl.col("size").is_nan())
    with reading([file]):
        most = large.select(pl.col("size").max()).collect(engine="streaming").item()
    if most is not None and most >= limit:
        raise DataError(
            _refused(
                file, column,
                f"is of type {dtype} and has ids like {most:.17g}: past {limit:,} floats lose digits, "
                "so that two ids become one",
            )
        )  # fmt: skip


def _exact_below(dtype: pl.DataType) -> int:
    """Give the number up to which each whole number has a float of its own; beyond, two ids may share one."""
    return 2**53 if dtype == pl.Float64 else 2**24 if dtype == pl.Float32 else 2**11


def _refused(file: ScannedFile, column: str, why: str) -> str:
    return f"column {column!r} {why}; write it as text or as whole numbers (in {file.path.name})"


def _float_text(raw: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    limit = _exact_below(dtype)
    whole = (raw % 1 == 0) & (raw.abs() < limit)
    as_whole = raw.cast(pl.Int64, strict=False).cast(pl.String)
    written = pl.when(whole).then(as_whole).otherwise(raw.cast(pl.String))
    return pl.when(raw.is_not_nan()).then(written)


def _bytes_text(file: ScannedFile, column: str) -> pl.Expr:
    """Read bytes as one of three things, told by the first values: UTF-8 text, else UUIDs or just bytes."""
    raw = pl.col(column)
    with reading([file]):
        some = file.frame.select(raw).drop_nulls().head(_SNIFFED_ROWS).collect().to_series()
    if all(_is_text(value) for value in some):
        return raw.map_batches(_decoded, return_dtype=pl.String, is_elementwise=True)
    digits = raw.bin.encode("hex")
    parts = [digits.str.slice(at, length) for at, length in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
    return pl.when(raw.bin.size() == _UUID_BYTES).then(pl.concat_str(parts, separator="-")).otherwise(digits)


def _is_text(value: bytes) -> bool:
    try:
        return not _CONTROL.search(value.decode())
    except UnicodeDecodeError:
        return False


def _decoded(values: pl.Series) -> pl.Series:
    try:
        return values.cast(pl.String)
    except pl.exceptions.ComputeError:  # a late value that is no UTF-8
        words = [v if v is None else v.decode() if _is_text(v) else v.hex() for v in values]
        return pl.Series(words, dtype=pl.String)
