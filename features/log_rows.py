"""The examples of several days as rows to fit on: read from disk so many at a time, in the log's order."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import polars as pl

from features.kinds.feature import FitRows
from recsys.snapshot import DaySnapshot


class LogRows(FitRows):
    """The examples [N] of some days, each of which counts once.

    Up to `piece_rows` of them are kept in memory. More are read again whenever they are asked for; of a day
    whose users were split, a whole column at a time.
    """

    def __init__(self, days: Sequence[DaySnapshot], piece_rows: int) -> None:
        """Take days, oldest first."""
        super().__init__(pl.DataFrame(), lambda: np.ones(self.num_rows))
        self._days, self._piece_rows = days, piece_rows

    @property
    def num_rows(self) -> int:
        """Count the rows."""
        return self._num_rows

    @property
    def in_memory(self) -> bool:
        """Tell whether the rows are few enough to be kept."""
        return self.num_rows <= self._piece_rows

    @property
    def schema(self) -> pl.Schema:
        """Give the columns of all days; where a type has changed, the one that holds both."""
        return self._none.schema

    @property
    def frame(self) -> pl.DataFrame:
        """Give all rows, for kinds that cannot be fitted in pieces."""
        return self._whole

    def frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Give those of some columns that are there, so many rows at a time."""
        there = [name for name in columns if name in self.schema]
        if self.in_memory or not there:
            yield self.frame.select(there) if there else pl.DataFrame()
            return
        none = self._none.select(there)
        for day in self._days:
            for rows in self._read(day, there):
                yield pl.concat([none, rows], how="diagonal_relaxed")

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
        """Give some columns and the examples of each row, so many rows at a time."""
        for frame in self.frames(columns):
            yield frame, np.ones(frame.height)

    @cached_property
    def _num_rows(self) -> int:
        return sum(day.num_rows("examples", part) for day in self._days for part in range(day.num_parts))

    @cached_property
    def _whole(self) -> pl.DataFrame:
        return pl.concat([day.table("examples") for day in self._days], how="diagonal_relaxed")

    @cached_property
    def _none(self) -> pl.DataFrame:
        heads = [day.scan("examples").head(0).collect() for day in self._days]
        return pl.concat(heads, how="diagonal_relaxed")

    def _read(self, day: DaySnapshot, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        known = day.scan("examples").collect_schema()
        # A day that has none of the columns still has its rows.
        own = [name for name in columns if name in known] or ["user_id"]
        if day.num_parts > 1:
            return day.table("examples", columns=own).iter_slices(self._piece_rows)
        return day.slices("examples", 0, self._piece_rows, own)
