"""The interaction log on disk: canonical tables, partitioned by business day, files replaced atomically."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from recsys.errors import DataError
from recsys.schema import TABLES, empty, with_absent_columns


@dataclass(frozen=True, slots=True)
class InteractionLog:
    """A folder of canonical tables: `root/<table>/date=YYYY-MM-DD/*.parquet`."""

    root: Path

    def holds(self, *others: str) -> bool:
        """Tell whether the folder is a log: one with a table, or with one of some other folders, or empty."""
        names = {child.name for child in self.root.iterdir() if not child.name.startswith(".")}
        return not names or any((self.root / name).is_dir() for name in names & {*TABLES, *others})

    def days(self, table: str) -> list[date]:
        """List the days a table has a partition for, ascending."""
        folder = self.root / table
        if not folder.is_dir():
            return []
        return sorted(_day_of(child) for child in folder.iterdir() if child.name.startswith("date="))

    def files(self, table: str, day: date) -> list[Path]:
        """List one partition's files, sorted by name; temporary files are not among them."""
        return sorted((self.root / table / f"date={day}").glob("*.parquet"))

    def read(self, table: str, day: date) -> pl.DataFrame:
        """Read one partition as written, free columns included; an absent partition is an empty table.

        Columns that older files may lack (`MAY_BE_ABSENT`) are added, null where they were not written.

        Raises: DataError, naming the file, when it is not readable Parquet.
        """
        frames = [_read_parquet(path) for path in self.files(table, day)]
        if not frames:
            return empty(table)
        return with_absent_columns(table, pl.concat(frames, how="diagonal_relaxed"))

    def write(self, table: str, day: date, frame: pl.DataFrame, stem: str = "part") -> Path:
        """Write one file of a partition; a file of the same stem is replaced whole or not at all."""
        assert table in TABLES, table
        target = self.root / table / f"date={day}" / f"{stem}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            frame.write_parquet(temporary, compression="zstd", compression_level=1)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def write_by_day(
        self, table: str, frame: pl.DataFrame, day_column: pl.Expr, stem: str = "part"
    ) -> list[date]:
        """Split a frame by a date expression and write one file per day; return the days."""
        split = frame.with_columns(__day=day_column).partition_by("__day", as_dict=True, include_key=False)
        days = sorted(key[0] for key in split)
        for day in days:
            self.write(table, day, split[(day,)], stem)
        return days

    def require_days(self, table: str) -> list[date]:
        """List the days of a table.

        Raises: DataError when there is none, naming the folder it reads.
        """
        days = self.days(table)
        if not days:
            raise DataError(
                f"no {table} in the log {self.root}: expected {self.root / table}/date=YYYY-MM-DD/*.parquet; "
                "write one with `recsys simulate` or `recsys convert`"
            )
        return days


def business_day(instant: str, timezone: str) -> pl.Expr:
    """Map a UTC instant column to the business day in a time zone."""
    return pl.col(instant).dt.convert_time_zone(timezone).dt.date()


def period_end(day: date, timezone: str) -> datetime:
    """Return the UTC instant at which a business day ends."""
    local = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(timezone))
    return local.astimezone(UTC)


def latest_by_key(frames: Iterable[pl.DataFrame], key: str) -> pl.DataFrame:
    """Stack day frames in order and keep each key's last row, first-seen order of keys kept."""
    stacked = pl.concat(list(frames), how="diagonal_relaxed")
    return stacked.unique(subset=[key], keep="last", maintain_order=True)


def _day_of(folder: Path) -> date:
    try:
        return date.fromisoformat(folder.name.removeprefix("date="))
    except ValueError:
        raise DataError(f"{folder} is not a partition: its name must read date=YYYY-MM-DD") from None


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}); restore it or remove it") from error
