"""What a row has of its user's state at one instant: the events of its history, counters since the snapshot.

The instant of a row is its own `shown_at`, unless its state is held (`features.held`).
"""

from dataclasses import dataclass
from typing import Self

import polars as pl

from features.definitions import LIVE_AGE, live_count
from features.history import history_bounds
from features.live import count_live
from recsys.config import RunConfig
from recsys.tasks import TaskSpec

_HISTORY = ("history_start", "history_stop")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """Which state rows have; a day's examples and the same rows with held state have the same."""

    tasks: tuple[TaskSpec, ...]
    counters: bool
    history_length: int
    lag_s: int

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Read `[features]`."""
        features = config.features
        return cls(
            tasks=config.tasks,
            counters=features.live_counters,
            history_length=features.history_length,
            lag_s=features.ingestion_lag,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the columns that `find` gives."""
        counters = (*(live_count(task) for task in self.tasks), LIVE_AGE)
        return (*_HISTORY, *counters) if self.counters else _HISTORY

    def find(self, rows: pl.DataFrame, events: pl.DataFrame, feedback: pl.DataFrame) -> pl.DataFrame:
        """Find the state of each row [N]: its slice of events, and its counters.

        Args: rows: user_id, and shown_at or state_at; events: by user, received_at and feedback_id; feedback:
        of the period, in any order.
        """
        found = history_bounds(rows, events, self.history_length, self.lag_s)
        if not self.counters:
            return found
        return found.hstack(count_live(rows, feedback, self.tasks, self.lag_s))
