"""One day's raw rows -> (valid rows, quarantined rows with reasons). Nothing is dropped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache

import polars as pl

from recsys.dataframely_alone import dy
from recsys.errors import DataError
from recsys.log import business_day
from recsys.schema import KEYS, PARTITION_INSTANT, with_absent_columns, with_free_columns

REASON = "quarantine_reason"
OVER_CAP = "over_daily_cap"
_DAY = "day of the partition"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A table's good rows, its quarantined rows (raw columns + reason), and the counts by reason."""

    good: pl.DataFrame
    quarantine: pl.DataFrame
    reasons: dict[str, int]


def clean(
    table: str,
    raw: pl.DataFrame,
    day: date | pl.Series,
    *,
    timezone: str,
    where: str,
    daily_cap: int,
    known_keys: pl.DataFrame,
    kept: Sequence[str] = (),
) -> Cleaned:
    """Apply a table's rules to one partition, or to the rows of several in ascending order.

    Args:
        day: the partition's day, or that of each row [N].
        known_keys: good keys of the partition before, so that a retry that crosses midnight counts once;
            among several partitions keys are compared inside each alone (`features.clean_period`).
        kept: columns beside the table's own that stay with its rows.
    Raises: DataError when a column is missing or has the wrong type: that is the file's fault, not a row's.
    """
    typed = _typed(table, with_absent_columns(table, raw), where)
    reasons = _broken_rules(table, typed) if raw.height else pl.Series(REASON, [], dtype=pl.String)
    if raw.height:
        dated = typed.with_columns(pl.lit(day).alias(_DAY) if isinstance(day, date) else day.alias(_DAY))
        first: date = dated[_DAY][0]
        # In this order, each among the rows that passed so far: a broken copy must not mark the good one as
        # duplicate.
        reasons = _mark(reasons, dated, "outside_partition", lambda rows: _outside(table, rows, timezone))
        reasons = _mark(reasons, dated, "duplicate", lambda rows: _duplicates(table, rows, known_keys, first))
        reasons = _mark(reasons, dated, OVER_CAP, lambda rows: _over_cap(table, rows, daily_cap))
    flagged = typed.with_columns(reasons, *(raw[name] for name in kept))
    bad = flagged.filter(pl.col(REASON).is_not_null())
    counts = dict(bad.group_by(REASON).len().sort(REASON).iter_rows())
    return Cleaned(good=flagged.filter(pl.col(REASON).is_null()).drop(REASON), quarantine=bad, reasons=counts)


def _mark(
    reasons: pl.Series, frame: pl.DataFrame, name: str, is_bad: Callable[[pl.DataFrame], pl.Series]
) -> pl.Series:
    """Give the rows without a reason this one, where it applies to them."""
    if not reasons.null_count():
        return reasons
    if reasons.null_count() == frame.height:
        wrong = is_bad(frame).arg_true()
    else:
        open_rows = reasons.is_null()
        wrong = open_rows.arg_true().filter(is_bad(frame.filter(open_rows)))
    return reasons.scatter(wrong, name) if wrong.len() else reasons


def _typed(table: str, raw: pl.DataFrame, where: str) -> pl.DataFrame:
    schema = with_free_columns(table, dict(raw.schema))
    wanted = schema.create_empty().schema
    missing = [name for name in wanted if name not in raw.columns]
    if missing:
        raise DataError(
            f"{where}: table {table} lacks the column(s) {', '.join(missing)}; "
            f"it has {', '.join(raw.columns)}. Write them (null where not known) and run again"
        )
    for name, dtype in wanted.items():
        if dtype.is_integer() and raw.schema[name].is_float() and (raw[name] % 1 != 0).any():
            raise DataError(f"{where}: table {table} has a column of the wrong type: {name} holds fractions")
    try:
        typed = raw.select(pl.col(name).cast(dtype, strict=True) for name, dtype in wanted.items())
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{where}: table {table} has a column of the wrong type: {error}") from error
    # An empty id names no impression, as in a request: labels and rates must not see one.
    return typed.with_columns(pl.col("impression_id").replace("", None)) if table == "feedback" else typed


def duplicate_key(table: str) -> list[str]:
    """Name the columns by which a row is recognised when it comes again.

    The user belongs to them, so that a share of the users finds the same duplicates as the whole log.
    """
    owner = ["user_id"] if table in ("impressions", "feedback") else []
    return list(dict.fromkeys([*KEYS[table], *owner]))


def _duplicates(table: str, frame: pl.DataFrame, known_keys: pl.DataFrame, first: date) -> pl.Series:
    """Tell which rows repeat a key of their partition; those of the first one also a known key."""
    key = duplicate_key(table)
    # What a user or an item is now stands last; an event was sent again.
    event = pl.struct(*key, _DAY)
    own = event.is_last_distinct() if table in ("users", "items") else event.is_first_distinct()
    repeated = frame.select(~own).to_series()
    if known_keys.is_empty():
        return repeated
    seen = frame.select(key).join(
        known_keys.select(key).unique().with_columns(__seen=True), on=key, how="left", maintain_order="left"
    )
    return repeated | ((frame[_DAY] == first) & seen["__seen"].fill_null(value=False))


def _outside(table: str, frame: pl.DataFrame, timezone: str) -> pl.Series:
    instant = PARTITION_INSTANT.get(table)
    if instant is None:
        return pl.Series([False] * frame.height, dtype=pl.Boolean)
    return frame.select((business_day(instant, timezone) != pl.col(_DAY)).fill_null(value=False)).to_series()


def _over_cap(table: str, frame: pl.DataFrame, daily_cap: int) -> pl.Series:
    if table not in ("impressions", "feedback"):
        return pl.Series([False] * frame.height, dtype=pl.Boolean)
    return frame.select(pl.int_range(pl.len()).over("user_id", _DAY) >= daily_cap).to_series()


def _broken_rules(table: str, frame: pl.DataFrame) -> pl.Series:
    """Name per row the schema rules it breaks; null where it breaks none."""
    numbered = _numbered(with_free_columns(table, dict(frame.schema)))
    _, failure = numbered.filter(frame.with_row_index("row_number"))
    reasons = pl.Series(REASON, [None], dtype=pl.String).new_from_index(0, frame.height)
    if not len(failure):
        return reasons
    details = failure.details()
    rules = [c for c in details.columns if c not in numbered.column_names()]
    broken = details.select(
        "row_number",
        names=pl.concat_list(pl.when(pl.col(r) == "invalid").then(pl.lit(r)) for r in rules)
        .list.drop_nulls()
        .list.join("; "),
    )
    return reasons.scatter(broken["row_number"], broken["names"])


@cache
def _numbered(schema: type[dy.Schema]) -> type[dy.Schema]:
    """Add the row's number to a schema."""
    found: type[dy.Schema] = type("Numbered", (schema,), {"row_number": dy.UInt32(nullable=False)})
    return found
