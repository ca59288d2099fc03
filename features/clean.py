"""One day's raw rows -> (rows that keep the contract, quarantined rows with reasons). Nothing is dropped."""

from dataclasses import dataclass
from datetime import date

import dataframely as dy
import polars as pl

from recsys.errors import DataError
from recsys.log import business_day
from recsys.schema import KEYS, PARTITION_INSTANT, with_free_columns

REASON = "quarantine_reason"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A table's good rows, its quarantined rows (raw columns + reason), and the counts by reason."""

    good: pl.DataFrame
    quarantine: pl.DataFrame
    reasons: dict[str, int]


def clean(
    table: str,
    raw: pl.DataFrame,
    day: date,
    *,
    timezone: str,
    where: str,
    daily_cap: int,
    known_keys: pl.DataFrame,
) -> Cleaned:
    """Apply a table's rules to one partition.

    Args: known_keys: keys of the partition before, so that a retry that crosses midnight counts once.
    Raises: DataError when a column is missing or has the wrong type: that is the file's fault, not a row's.
    """
    typed = _typed(table, raw, where)
    marks = {
        "duplicate": _duplicates(table, typed, known_keys),
        "outside_partition": _outside(table, typed, day, timezone),
        "over_daily_cap": _over_cap(table, typed, daily_cap),
    }
    reason = pl.coalesce(
        pl.Series(_broken_rules(table, typed), dtype=pl.String),
        *(pl.when(mark).then(pl.lit(name)) for name, mark in marks.items()),
    )
    flagged = typed.with_columns(reason.alias(REASON))
    bad = flagged.filter(pl.col(REASON).is_not_null())
    counts = dict(bad.group_by(REASON).len().sort(REASON).iter_rows())
    return Cleaned(good=flagged.filter(pl.col(REASON).is_null()).drop(REASON), quarantine=bad, reasons=counts)


def _typed(table: str, raw: pl.DataFrame, where: str) -> pl.DataFrame:
    schema = with_free_columns(table, dict(raw.schema))
    wanted = schema.create_empty().schema
    missing = [name for name in wanted if name not in raw.columns]
    if missing:
        raise DataError(
            f"{where}: table {table} lacks the column(s) {', '.join(missing)}; "
            f"it has {', '.join(raw.columns)}. Write them (null where not known) and run again"
        )
    try:
        return raw.select(pl.col(name).cast(dtype, strict=True) for name, dtype in wanted.items())
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{where}: table {table} has a column of the wrong type: {error}") from error


def _duplicates(table: str, frame: pl.DataFrame, known_keys: pl.DataFrame) -> pl.Series:
    key = list(KEYS[table])
    repeated = frame.select(pl.struct(key).is_first_distinct().not_()).to_series()
    if known_keys.is_empty():
        return repeated
    seen = frame.select(key).join(
        known_keys.select(key).unique().with_columns(__seen=True), on=key, how="left", maintain_order="left"
    )
    return repeated | seen["__seen"].fill_null(value=False)


def _outside(table: str, frame: pl.DataFrame, day: date, timezone: str) -> pl.Series:
    instant = PARTITION_INSTANT.get(table)
    if instant is None:
        return pl.Series([False] * frame.height, dtype=pl.Boolean)
    return frame.select((business_day(instant, timezone) != day).fill_null(value=False)).to_series()


def _over_cap(table: str, frame: pl.DataFrame, daily_cap: int) -> pl.Series:
    if table not in ("impressions", "feedback"):
        return pl.Series([False] * frame.height, dtype=pl.Boolean)
    return frame.select(pl.int_range(pl.len()).over("user_id") >= daily_cap).to_series()


def _broken_rules(table: str, frame: pl.DataFrame) -> list[str | None]:
    schema: type[dy.Schema] = with_free_columns(table, dict(frame.schema))
    rows = dy.UInt32(nullable=False)
    numbered: type[dy.Schema] = type("Numbered", (schema,), {"row_number": rows})
    _, failure = numbered.filter(frame.with_row_index("row_number"))
    reasons: list[str | None] = [None] * frame.height
    if not len(failure):
        return reasons
    details = failure.details()
    rules = [c for c in details.columns if c not in numbered.column_names()]
    for row in details.select("row_number", *rules).iter_rows(named=True):
        reasons[row["row_number"]] = "; ".join(rule for rule in rules if row[rule] == "invalid")
    return reasons
