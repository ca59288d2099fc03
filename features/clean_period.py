"""One period's partitions of a table -> cleaned rows: all at once where that gives what each alone gives.

A partition's rules look at its own rows, and a retry at midnight at the rows of the partition before. So many
small partitions are cleaned in one go, unless they differ in their columns, or a key comes in two of them.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl

from features.clean import OVER_CAP, REASON, Cleaned, clean, duplicate_key
from recsys.config import RunConfig
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.schema import empty
from recsys.snapshot import ROW

USER_TABLES = ("impressions", "feedback", "users")


def clean_day(
    table: str,
    rows: pl.DataFrame,
    day: date | pl.Series,
    log: InteractionLog,
    config: RunConfig,
    known: pl.DataFrame,
) -> Cleaned:
    """Apply a table's rules to one partition, or a share of it; as `features.clean.clean` to several.

    Raises: DataError, naming the partition, when a column is missing or has the wrong type.
    """
    return clean(
        table,
        rows,
        day,
        timezone=config.timezone,
        where=str(log.root / table / f"date={day}"),
        daily_cap=config.features.daily_cap,
        known_keys=known,
        kept=(ROW,) if table in USER_TABLES else (),
    )


def clean_together(
    table: str,
    partitions: Sequence[tuple[date, pl.DataFrame]],
    log: InteractionLog,
    config: RunConfig,
    known: pl.DataFrame,
) -> Cleaned | None:
    """Clean several partitions as one frame; None where each has to be cleaned after the one before.

    Args: partitions: ascending by day; known: the keys that the first one is compared with.
    """
    if len(partitions) < 2:
        return None
    filled = [(day, rows) for day, rows in partitions if rows.height] or list(partitions[:1])
    if not all(_fits(table, rows, filled[0][1]) for _, rows in partitions):
        return None
    days = np.repeat(np.array([d for d, _ in filled], "datetime64[D]"), [rows.height for _, rows in filled])
    first = known if filled[0][0] == partitions[0][0] else pl.DataFrame()
    try:
        found = clean_day(table, pl.concat([rows for _, rows in filled]), pl.Series(days), log, config, first)
    except DataError:
        return None  # each alone, the one at fault is named
    # Alone, a row over the cap that repeats one of the day before is a duplicate.
    capped = found.quarantine.filter(pl.col(REASON) == OVER_CAP)
    keys = pl.concat([rows.select(duplicate_key(table)) for rows in (found.good, capped)])
    return found if keys.n_unique() == keys.height else None


def _fits(table: str, rows: pl.DataFrame, others: pl.DataFrame) -> bool:
    """Tell whether rows can stand in one frame with others: an absent partition has no columns of its own."""
    absent = not rows.height and set(rows.columns) <= {*empty(table).columns, ROW}
    return absent or rows.schema == others.schema
