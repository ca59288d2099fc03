"""A day's snapshot on disk: the feature tables of one business day, from `features` for `training`.

manifest.json        counts, quarantine reasons, inputs (written last)
items.parquet        nightly values per item as of the end of the day (raw numbers, not encoded)
item_tile.parquet    the day's integers per item
new_items.parquet    items first seen on this day: served since their upsert, without counts yet
quarantine/          rows that broke a rule, with the reason
part-0000/ …         one folder per share of the users (`recsys.snapshot.user_part`), each with
  users.parquet        nightly values per user as of the end of the day
  user_tile.parquet    the day's integers per user
  cross_<column>.parquet, cross_<column>_tile.parquet   the same per user and item column (category, …)
  tail.parquet         each user's last events as of the end of the day
  seen.parquet         what each user has done of the kinds that are not shown again
  examples.parquet     the day's impressions, the slice of `events` each may see, and its live counters
  events.parquet       today's users: yesterday's tail and today's events, by (user, received_at, feedback_id)
  feedback.parquet     the day's clean feedback (labels are made from it, night by night)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import polars as pl

from recsys.stages import read_manifest


@dataclass(frozen=True)
class DaySnapshot:
    """One finished day."""

    day: date
    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Read the day's manifest."""
        return read_manifest(self.path)

    @property
    def num_parts(self) -> int:
        """Count the shares that the users are split into."""
        return int(self.manifest["parts"])

    def table(self, name: str, part: int | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read one of the day's tables, all columns or some; of a user's table all parts, or one."""
        wanted = None if columns is None else list(columns)
        whole = self.path / f"{name}.parquet"
        if whole.is_file():
            return pl.read_parquet(whole, columns=wanted)
        parts = range(self.num_parts) if part is None else [part]
        files = [part_folder(self.path, p) / f"{name}.parquet" for p in parts]
        return pl.concat([pl.read_parquet(f, columns=wanted) for f in files], how="diagonal_relaxed")

    def examples(self, part: int | None = None) -> pl.DataFrame:
        """Read the examples; their slices of events point into `table("events", part)`.

        On disk a slice counts within its own share, so those of a whole day move along by the shares before.
        """
        if part is not None:
            return self.table("examples", part)
        shares, offset = [], 0
        for share in range(self.num_parts):
            moved = pl.col("history_start", "history_stop") + pl.lit(offset, pl.UInt32)
            shares.append(self.table("examples", share).with_columns(moved))
            offset += self.table("events", share, ["user_id"]).height
        return pl.concat(shares, how="diagonal_relaxed")

    def table_of_part(
        self, name: str, part: int, num_parts: int, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Read the rows of one share of the users, however this day itself was split.

        Args: columns: all by default; `user_id` must be among them.
        """
        if num_parts == self.num_parts:
            return self.table(name, part, columns)
        rows = self.table(name, columns=columns)
        return rows.filter(user_part(rows["user_id"], num_parts) == part)


def part_folder(snapshot: Path, part: int) -> Path:
    """Name the folder of one share of the users."""
    return snapshot / f"part-{part:04d}"


def user_part(user_ids: pl.Series, num_parts: int) -> pl.Series:
    """Return each user's share in [0, num_parts): the same on every machine and in every version.

    Rows without a user are in the first share, where cleaning handles them.
    """
    if num_parts == 1:
        return pl.Series("part", [0], dtype=pl.UInt32).new_from_index(0, user_ids.len())
    # Polars' own hash may change between versions and processors.
    distinct = user_ids.drop_nulls().unique()
    shares = [crc32(u.encode()) % num_parts for u in distinct.to_list()]
    shared = pl.DataFrame({"user_id": distinct, "part": pl.Series(shares, dtype=pl.UInt32)})
    return (
        user_ids.alias("user_id")
        .to_frame()
        .join(shared, on="user_id", how="left", maintain_order="left")["part"]
        .fill_null(0)
    )
