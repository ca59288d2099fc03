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
  taken.parquet        each user's newest standing events that took an item (`features.taken`)
  seen.parquet         what each user has done of the kinds that are not shown again
  examples.parquet     the day's impressions by `row`; the slice of `events` each may see and live counters,
                       as of `shown_at`, or of a column `state_at` (`features.held`)
  events.parquet       today's users: yesterday's tail and today's events, by (user, received_at, feedback_id)
  feedback.parquet     the day's clean feedback by `row` (labels are made from it every night)

`row` numbers the raw rows of the period in the order of the log. A whole day comes in that order, or by user:
nothing that reads it depends on how many parts the users were split into.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import polars as pl

from recsys.stages import read_manifest

ROW = "row"
"""The place of an impression or of feedback among the period's raw rows of its table."""
STATE_AT = "state_at"
"""When a row's state and its clock are of, in a table where that is not its own `shown_at`."""
_LOGGED = ("examples", "feedback")
"""Tables in the order of `row`; the other users' tables are sorted by user."""


@dataclass(frozen=True)
class DaySnapshot:
    """One finished day."""

    day: date
    path: Path
    held: Mapping[str, pl.DataFrame] = field(default_factory=dict, repr=False, compare=False, kw_only=True)
    """Tables that are still in memory from when they were written: of a day whose users are in one share."""

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Read the day's manifest."""
        return read_manifest(self.path)

    @property
    def num_parts(self) -> int:
        """Count the shares that the users are split into."""
        return int(self.manifest["parts"])

    def table(self, name: str, part: int | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Read one of the day's tables, all columns or some; of a users' table all parts in order, or one."""
        wanted = None if columns is None else list(columns)
        if name in self.held:
            return self.held[name] if wanted is None else self.held[name].select(wanted)
        whole = self.path / f"{name}.parquet"
        if whole.is_file():
            return pl.read_parquet(whole, columns=wanted)
        if part is None:
            return self._in_order(name, wanted)
        return pl.read_parquet(part_folder(self.path, part) / f"{name}.parquet", columns=wanted)

    def examples(self, part: int | None = None) -> pl.DataFrame:
        """Read the examples; their slices of events point into `table("events", part)`.

        On disk a slice counts within its own share; in a whole day it moves to where its user's events are.
        """
        rows = self.table("examples", part)
        if part is not None or self.num_parts == 1:
            return rows
        moved = rows.select("user_id").join(self._moves(), on="user_id", how="left", maintain_order="left")
        by = pl.when(pl.col("history_start") < pl.col("history_stop")).then(moved["by"]).otherwise(0)
        return rows.with_columns((pl.col("history_start", "history_stop") + by).cast(pl.UInt32))

    def scan(self, name: str, part: int = 0) -> pl.LazyFrame:
        """Scan one part of a users' table."""
        return pl.scan_parquet(part_folder(self.path, part) / f"{name}.parquet")

    def slices(
        self, name: str, part: int, num_rows: int, columns: Sequence[str] | None = None
    ) -> Iterator[pl.DataFrame]:
        """Read one part of a users' table, so many rows at a time; a table without rows gives none."""
        rows = self.scan(name, part) if columns is None else self.scan(name, part).select(columns)
        for start in range(0, self.num_rows(name, part), num_rows):
            yield rows.slice(start, num_rows).collect()

    def first_rows(self, name: str, num_rows: int, columns: Sequence[str]) -> pl.DataFrame:
        """Read some columns of the first rows of `examples` or `feedback`, in the order of the log."""
        parts = range(self.num_parts)
        heads = [self.scan(name, p).select(*columns, ROW).head(num_rows).collect() for p in parts]
        return pl.concat(heads, how="diagonal_relaxed").sort(ROW).head(num_rows).select(columns)

    def num_rows(self, name: str, part: int) -> int:
        """Count the rows of one part of a users' table, without reading them."""
        return int(self.scan(name, part).select(pl.len()).collect().item())

    def table_of_part(
        self, name: str, part: int, num_parts: int, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Read the rows of one share of the users, however this day itself was split.

        Args: columns: all by default; `user_id` must be among them.
        """
        if num_parts == self.num_parts:
            return self.table(name, part, columns)
        wanted = None if columns is None else list(columns)
        return self._in_order(name, wanted, lambda rows: user_part(rows["user_id"], num_parts) == part)

    def _in_order(
        self,
        name: str,
        columns: list[str] | None,
        keep: Callable[[pl.DataFrame], pl.Series] | None = None,
    ) -> pl.DataFrame:
        """Read all parts of a table, or some of its rows, as if the users had never been split."""
        order = ROW if name in _LOGGED else "user_id"
        read = columns if columns is None or order in columns else [*columns, order]
        files = [part_folder(self.path, part) / f"{name}.parquet" for part in range(self.num_parts)]
        frames = [pl.read_parquet(file, columns=read) for file in files]
        if keep is not None:
            frames = [frame.filter(keep(frame)) for frame in frames]
        if self.num_parts == 1:
            rows = frames[0]
        else:
            rows = pl.concat(frames, how="diagonal_relaxed").sort(order, maintain_order=True)
        return rows if columns is None else rows.select(columns)

    def _moves(self) -> pl.DataFrame:
        """Tell how far each user's events lie from where they are in their own share: user_id, by."""
        shares = [self.table("events", p, ["user_id"]).with_row_index("old") for p in range(self.num_parts)]
        sorted_rows = pl.concat(shares).sort("user_id", maintain_order=True).with_row_index("new")
        first = sorted_rows.unique("user_id", keep="first", maintain_order=True)
        return first.select("user_id", by=pl.col("new").cast(pl.Int64) - pl.col("old"))


def state_at(rows: pl.DataFrame) -> pl.Series:
    """Give the instant [N] that each row's state and clock are of."""
    return rows[STATE_AT if STATE_AT in rows.columns else "shown_at"]


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
