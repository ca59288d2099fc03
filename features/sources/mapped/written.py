"""Days of a table, checked and written together: what a write costs beside its rows is paid once."""

from dataclasses import dataclass, field
from datetime import date
from typing import Final

import polars as pl

from features.sources.conversion import Conversion

MOST_ROWS: Final = 50_000
"""So many rows wait at most, and those of one more day."""
_DAY: Final = "day of the row"


@dataclass(slots=True)
class WrittenDays:
    """What one table of a conversion is given, day by day; the last days wait for `flush`."""

    conversion: Conversion
    table: str
    counted: bool = True
    """Whether its rows are those of the files, and counted as kept."""
    _waiting: list[pl.DataFrame] = field(default_factory=list)
    _rows: int = 0

    def put(self, day: date, rows: pl.DataFrame) -> None:
        """Take all rows of a day."""
        self._waiting.append(rows.with_columns(pl.lit(day).alias(_DAY)))
        self._rows += rows.height
        if self._rows > MOST_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the days that wait."""
        if not self._waiting:
            return
        rows = pl.concat(self._waiting, how="diagonal_relaxed")
        kept = self.conversion.write(self.table, rows, pl.col(_DAY))
        if self.counted:
            self.conversion.account(self.table, 0, kept)
        self._waiting, self._rows = [], 0
