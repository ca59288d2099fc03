"""Draw negatives for a log larger than memory: some users at a time, their draws stored by day.

A draw depends on seed, user and day only (`sample_negatives`), and on whether users of the log choose items
again, so how many users are taken at a time changes nothing.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import polars as pl

from features.sources.conversion import Step
from features.sources.mapped.chosen import TAKEN_ONCE
from features.sources.mapped.dated import scan_dated
from features.sources.mapped.mapping import Negatives
from features.sources.negatives import sample_negatives
from recsys.log import InteractionLog

_ROWS_AT_A_TIME: Final = 400_000


@dataclass(frozen=True, slots=True)
class StoredNegatives:
    """Drawn items on disk: ROOT/users-N/day=DAY/*.parquet."""

    root: Path

    def put(self, batch: int, rows: pl.DataFrame) -> None:
        """Store the draws of one batch of users."""
        target = pl.PartitionBy(self.root / f"users-{batch}", key="day", include_key=False)
        rows.lazy().sink_parquet(target, mkdir=True, compression="lz4")

    def read(self, day: date) -> pl.DataFrame:
        """Read a day's draws: user_id, item_id, shown_at, sampling_rate."""
        paths = sorted(self.root.glob(f"users-*/day={day}/*.parquet"))
        return pl.read_parquet(paths, hive_partitioning=False) if paths else pl.DataFrame()

    def count(self) -> int:
        """Count all draws."""
        paths = sorted(self.root.rglob("*.parquet"))
        rows = pl.scan_parquet(paths, hive_partitioning=False).select(pl.len()) if paths else None
        return 0 if rows is None else int(rows.collect().item())


def draw_negatives(
    shown: InteractionLog, catalogue: pl.DataFrame, settings: Negatives, drawn: StoredNegatives, step: Step
) -> tuple[int, bool]:
    """Draw `per_positive` items for each chosen one.

    Args: shown: derived impressions by day. catalogue: item_id, known_day, as `sample_negatives` needs it.
    Returns: how many choices, one a day, are of an item that the user had taken on an earlier day, and
    whether such items may be drawn.
    """
    days = shown.days("impressions")
    if not settings.per_positive or not days:
        return 0, False
    paths = [path for day in days for path in shown.files("impressions", day)]
    rows = scan_dated(paths).select("user_id", "item_id", "shown_at", day="date")
    total = int(rows.select(pl.len()).collect().item())
    batches, (repeated, choices) = -(-total // _ROWS_AT_A_TIME), _chosen_again(rows)
    by_share = repeated >= TAKEN_ONCE * choices
    again = by_share if settings.taken_before == "auto" else settings.taken_before == "draw"
    for batch in range(batches):
        step("sampling negatives", 0.7 + 0.15 * batch / batches)
        mine = rows.filter(pl.col("user_id").hash(0) % batches == batch).collect(engine="streaming")
        if mine.height:
            sampled = sample_negatives(
                mine, catalogue, per_positive=settings.per_positive, seed=settings.seed, again=again
            )
            drawn.put(batch, sampled)
    return repeated, again


def _chosen_again(rows: pl.LazyFrame) -> tuple[int, int]:
    """Count choices, one a day, of an item that the user had on an earlier day, and all choices."""
    days = rows.group_by("user_id", "item_id").agg(pl.col("day").n_unique())
    counts = days.select((pl.col("day") - 1).sum(), all=pl.col("day").sum()).collect(engine="streaming")
    return int(counts["day"].item()), int(counts["all"].item())
