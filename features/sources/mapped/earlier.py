"""Events that an earlier day has: sent again a day later, or received on two days."""

from dataclasses import dataclass, field

import polars as pl

from features.sources.mapped.days import EVENT
from features.sources.mapped.seen import Seen


@dataclass(slots=True)
class EarlierEvents:
    """The events of the days so far: 16 bytes each; days must ascend."""

    _ids: Seen = field(default_factory=Seen)
    _told: Seen = field(default_factory=Seen)

    def split(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Give the events of a day that are new, and the others with `other`: their id is another event's.

        Args: rows: each event once (`days.distinct_events`).
        """
        named = pl.col("event").is_not_null()
        again = _again(self._ids, rows.select(
            pl.when(named).then(pl.col("event").hash(0)).otherwise(pl.struct(*EVENT).hash(1))
        ).to_series())  # fmt: skip
        told = _again(self._told, rows.select(pl.struct("event", *EVENT[:3]).hash(0)).to_series())
        marked = rows.with_columns(again=again, other=named & ~told)
        return rows.filter(~again), marked.filter("again").drop("again")


def _again(seen: Seen, hashes: pl.Series) -> pl.Series:
    found = pl.DataFrame({"id": hashes}).with_row_index("row")
    once = found.group_by("id").agg("row").sort("id")
    return once.with_columns(again=seen.again(once["id"])).explode("row").sort("row").get_column("again")
