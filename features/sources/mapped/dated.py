"""Partitions as one frame, with the business day of their folder as `date`."""

from datetime import date
from pathlib import Path

import polars as pl

_KEY = "date="


def scan_dated(paths: list[Path]) -> pl.LazyFrame:
    """Scan the files of folders date=DAY [at least one]; a column that a file lacks is null in it."""
    if any("=" in part for part in paths[0].parts[:-2]):
        # Polars would take that folder for one more key of the partitions.
        frames = [
            pl.scan_parquet(path, hive_partitioning=False).with_columns(
                date=pl.lit(date.fromisoformat(path.parent.name.removeprefix(_KEY)))
            )
            for path in paths
        ]
        return pl.concat(frames, how="diagonal_relaxed")
    schema = {"date": pl.Date}
    return pl.scan_parquet(paths, hive_partitioning=True, hive_schema=schema, missing_columns="insert")
