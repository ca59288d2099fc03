"""A day's snapshot on disk: the feature tables of one business day, from `features` for `training`.

manifest.json       counts, quarantine reasons, inputs (written last)
users.parquet       nightly values per user as of the end of the day (raw numbers, not encoded)
items.parquet       nightly values per item as of the end of the day
tail.parquet        each user's last events as of the end of the day
    seen.parquet        what each user has ever done of the kinds that are not shown again
user_tile.parquet, item_tile.parquet, user_lifetime.parquet, item_lifetime.parquet   integers
examples.parquet    the day's impressions with the slice of `events` each may see
events.parquet      yesterday's tail and today's events, sorted by (user, received_at, feedback_id)
new_items.parquet   items first seen on this day: known live from their upsert, without any counts yet
feedback.parquet    the day's clean feedback (labels are made from it, night by night)
quarantine/         rows that broke a rule, with the reason
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from recsys.stages import read_manifest


@dataclass(frozen=True, slots=True)
class DaySnapshot:
    """One finished day."""

    day: date
    path: Path

    def table(self, name: str) -> pl.DataFrame:
        """Read one of the day's tables."""
        return pl.read_parquet(self.path / f"{name}.parquet")

    @property
    def manifest(self) -> dict[str, Any]:
        """Read what the day says of itself."""
        return read_manifest(self.path)
