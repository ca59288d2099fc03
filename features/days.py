"""The days of a log up to a night: a snapshot a period, what comes before each, what was known of its labels.

Days are addressed by their place `i`, oldest first. A period that the log has nothing of is a day like the
others, without rows: windows and lags count real time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Self, overload

import polars as pl

from features.labels import make_labels
from recsys.config import Period, RunConfig
from recsys.log import period_end
from recsys.snapshot import DaySnapshot, part_folder
from recsys.tasks import LABEL_KEYS, TaskSpec

LATE_PERIODS = 8
"""Feedback and reversals received so many periods after an impression's own still count for its labels."""


@dataclass(frozen=True, kw_only=True)
class Days(Sequence[DaySnapshot]):
    """Snapshots in order, and the labels of their impressions as known at one instant."""

    snapshots: tuple[DaySnapshot, ...]
    tasks: tuple[TaskSpec, ...]
    timezone: str
    period: Period
    as_of: datetime
    """Labels are what was known then: feedback received at or after it is not seen."""
    _labels: dict[int, pl.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, snapshots: Sequence[DaySnapshot], config: RunConfig) -> Self:
        """Take snapshots [at least one], oldest first; labels are those known at the end of the last day."""
        return cls(
            snapshots=tuple(snapshots),
            tasks=config.tasks,
            timezone=config.timezone,
            period=config.period,
            as_of=period_end(snapshots[-1].day, config.timezone),
        )

    def as_known_at(self, as_of: datetime) -> Self:
        """Give the same days with the labels that were known at another instant."""
        return self if as_of == self.as_of else replace(self, as_of=as_of, _labels={})

    def labelled_for(self, tasks: Sequence[TaskSpec]) -> Self:
        """Give the same days with the labels of other tasks."""
        if [label_keys(t) for t in tasks] == [label_keys(t) for t in self.tasks]:
            return self
        return replace(self, tasks=tuple(tasks), _labels={})

    def __len__(self) -> int:
        return len(self.snapshots)

    @overload
    def __getitem__(self, i: int) -> DaySnapshot: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[DaySnapshot, ...]: ...
    def __getitem__(self, i: int | slice) -> DaySnapshot | tuple[DaySnapshot, ...]:
        return self.snapshots[i]

    @property
    def last(self) -> int:
        """Give the place of the last day."""
        return len(self.snapshots) - 1

    @property
    def dates(self) -> list[date]:
        """List all days."""
        return [snapshot.day for snapshot in self.snapshots]

    def dates_of(self, places: Iterable[int]) -> list[date]:
        """List the days at some places."""
        return [self.snapshots[i].day for i in places]

    def place(self, day: date) -> int:
        """Give a day's place.

        Raises: ValueError when it is none of these days.
        """
        return self.dates.index(day)

    def between(self, first: date, last: date) -> list[int]:
        """List the places of the days from one to another, both included."""
        return [i for i, day in enumerate(self.dates) if first <= day <= last]

    def before(self, i: int) -> DaySnapshot | None:
        """Give the day before day i: what was published when it began; None for the first."""
        return self.snapshots[i - 1] if i else None

    def end_of(self, i: int) -> datetime:
        """Give the instant at which day i is over."""
        return period_end(self.snapshots[i].day, self.timezone)

    def num_impressions(self, i: int) -> int:
        """Count the impressions of day i that cleaning let through."""
        return int(self.snapshots[i].manifest["rows"]["impressions"])

    def labels(self, i: int) -> pl.DataFrame:
        """Label day i's impressions, once: impression_id, user_id and `label_<task>`; null = not known."""
        if i not in self._labels:
            # Feedback that comes later than this is too late to change a label trained on long ago.
            known = self.snapshots[i : i + 1 + LATE_PERIODS]
            feedback = pl.concat([s.table("feedback") for s in known], how="diagonal_relaxed")
            examples = self.snapshots[i].table("examples")
            self._labels[i], _ = make_labels(examples, feedback, self.tasks, self.as_of)
        return self._labels[i]

    def label_some(self, i: int, impressions: pl.DataFrame, part: int) -> pl.DataFrame:
        """Label some impressions of one part of day i as `labels` does; memory holds their feedback only."""
        num_parts = self.snapshots[i].num_parts
        known = [
            pl.scan_parquet(part_folder(s.path, p) / "feedback.parquet")
            for s in self.snapshots[i : i + 1 + LATE_PERIODS]
            for p in ([part] if s.num_parts == num_parts else range(s.num_parts))
        ]
        key = ["impression_id", "user_id"]
        mine = impressions.lazy().select(key)
        own = [rows.join(mine, on=key, how="semi") for rows in known]
        feedback = pl.concat(own, how="diagonal_relaxed").collect(engine="streaming")
        return make_labels(impressions, feedback, self.tasks, self.as_of)[0]


def label_keys(task: TaskSpec) -> tuple[object, ...]:
    """Give what decides a task's labels: tasks that are equal in this have the same ones."""
    return tuple(getattr(task, key) for key in LABEL_KEYS)
