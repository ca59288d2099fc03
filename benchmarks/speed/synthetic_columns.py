"""Columns of synthetic tables: ids and instants."""

from datetime import UTC, date, datetime

import numpy as np
import polars as pl


def ids(prefix: str, numbers: np.ndarray) -> pl.Series:
    """Name things by a prefix and their numbers."""
    return pl.select(pl.concat_str(pl.lit(prefix), pl.Series(numbers))).to_series()


def instants(day: date, size: int, rng: np.random.Generator) -> pl.Series:
    """Draw instants of a day, in order."""
    first = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    return pl.Series(np.sort(first + rng.integers(0, 86_000_000, size))).cast(pl.Datetime("ms", "UTC"))
