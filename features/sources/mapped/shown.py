"""The impressions that the feedback of a day may belong to; what two days have in common is read once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import polars as pl

from recsys.log import InteractionLog

_READ: Final = ["impression_id", "request", "request_id", "user_id", "item_id", "shown_at"]


@dataclass(slots=True)
class ShownNearby:
    """Staged impressions, of which the days that were asked for last are in memory."""

    log: InteractionLog
    days: list[date] = field(init=False)
    """All days, ascending."""
    _known: dict[date, pl.DataFrame] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """List the days once: a folder of thousands is slow to list."""
        self.days = self.log.days("impressions")

    def of(self, days: Sequence[date]) -> pl.DataFrame:
        """Give the impressions of some days; without any, a frame without columns."""
        self._known = {day: self._known[day] if day in self._known else self._read(day) for day in days}
        return pl.concat(self._known.values()) if self._known else pl.DataFrame()

    def _read(self, day: date) -> pl.DataFrame:
        paths = self.log.files("impressions", day)
        return pl.concat([pl.read_parquet(path, columns=_READ, hive_partitioning=False) for path in paths])
