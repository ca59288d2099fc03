"""The days of a log up to a night: a snapshot a period, what comes before each, what was known of its labels.

Days are addressed by their place `i`, oldest first. A period that the log has nothing of is a day like the
others, without rows: windows and lags count real time.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Self, overload

import polars as pl

from features.label_shares import LabelShares
from features.labels import make_labels
from features.live_state import LiveState
from recsys.config import Period, RunConfig
from recsys.log import period_end
from recsys.scratch import scratch_folder
from recsys.snapshot import DaySnapshot
from recsys.tasks import LABEL_KEYS, TaskSpec

LATE_PERIODS = 8
"""Feedback and reversals received so many periods after an impression's own still count for its labels."""


_COMPARED, _LATER = 7, timedelta(hours=1)
"""So many days say how early a whole one falls silent, and so much earlier one has to."""


@dataclass(frozen=True, kw_only=True)
class Days(Sequence[DaySnapshot]):
    """Snapshots in order, and the labels of their impressions as known at one instant."""

    snapshots: tuple[DaySnapshot, ...]
    tasks: tuple[TaskSpec, ...]
    live_state: LiveState
    """What the rows' state was computed by."""
    timezone: str
    period: Period
    known_at: datetime | None = None
    """Labels are what was known then; None: when the last day was over, or the log."""
    _labels: dict[int, pl.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, snapshots: Sequence[DaySnapshot], config: RunConfig) -> Self:
        """Take snapshots [at least one], oldest first; labels are those known at the end of the log."""
        return cls(
            snapshots=tuple(snapshots),
            tasks=config.tasks,
            live_state=LiveState.of(config),
            timezone=config.timezone,
            period=config.period,
        )

    @cached_property
    def as_of(self) -> datetime:
        """Give the instant at which labels are known: feedback received at or after it is not seen."""
        return self.known_at or self._end_of_log()

    def as_known_at(self, as_of: datetime) -> Self:
        """Give the same days with the labels that were known at another instant."""
        return self if as_of == self.as_of else replace(self, known_at=as_of, _labels={})

    def apart(self) -> Self:
        """Give the same days for one look: labels that are made of them are not kept with these."""
        return replace(self, known_at=self.as_of, _labels={})

    def labelled_for(self, tasks: Sequence[TaskSpec]) -> Self:
        """Give the same days with the labels of other tasks."""
        if [label_keys(t) for t in tasks] == [label_keys(t) for t in self.tasks]:
            return self
        return replace(self, tasks=tuple(tasks), known_at=self.as_of, _labels={})

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
            found = [s.table("feedback") for s in self._with_feedback(i)]
            feedback = pl.concat(found, how="diagonal_relaxed")
            examples = self.snapshots[i].table("examples")
            self._labels[i], _ = make_labels(examples, feedback, self.tasks, self.as_of)
        return self._labels[i]

    def label_shares(self, i: int, part: int, piece_rows: int, folder: Path) -> LabelShares:
        """Spread the feedback on one part of day i over shares; its impressions are still to be added.

        Args: piece_rows: about so many impressions, and so much feedback, are in a share; folder: is made.
        """
        num_parts = self.snapshots[i].num_parts
        known = [
            (snapshot, p)
            for snapshot in self._with_feedback(i)
            for p in ([part] if snapshot.num_parts == num_parts else range(snapshot.num_parts))
        ]
        num_rows = sum(snapshot.num_rows("feedback", p) for snapshot, p in known)
        num_rows = max(num_rows, self.snapshots[i].num_rows("examples", part))
        shares = LabelShares(folder, max(1, -(-num_rows // piece_rows)))
        for snapshot, p in known:
            shares.add_feedback(snapshot.slices("feedback", p, piece_rows), self.tasks, self.as_of)
        return shares

    def labels_in_pieces(self, i: int, piece_rows: int) -> Iterator[pl.DataFrame]:
        """Give the rows of `labels` in any order; memory holds about `piece_rows` of them."""
        snapshot = self.snapshots[i]
        if self.num_impressions(i) <= piece_rows:
            yield self.labels(i)
            return
        with scratch_folder(snapshot.path.parent, "labels") as folder:
            for part in range(snapshot.num_parts):
                shares = self.label_shares(i, part, piece_rows, folder / str(part))
                for rows in snapshot.slices("examples", part, piece_rows):
                    shares.add_impressions(rows, pl.int_range(rows.height, eager=True))
                for _, labels in shares.labels(self.tasks, self.as_of):
                    yield labels

    def _end_of_log(self) -> datetime:
        """Give the end of the last day, or of the log where it ends before the day does.

        That is where the day falls silent an hour earlier than any of the days before. A window that closes
        after the last event is open: what happened then is not in the log.
        """
        over = self.end_of(self.last)
        event = _last_event(self.snapshots[-1])
        before = range(max(0, self.last - _COMPARED), self.last)
        silent = [self.end_of(i) - at for i in before if (at := _last_event(self.snapshots[i])) is not None]
        if event is None or not silent or over - event <= max(silent) + _LATER:
            return over
        return event + timedelta(milliseconds=1)

    def _with_feedback(self, i: int) -> tuple[DaySnapshot, ...]:
        """Give the days whose feedback may belong to day i.

        What comes later is too late to change a label that was trained on long ago.
        """
        return self.snapshots[i : i + 1 + LATE_PERIODS]


def _last_event(snapshot: DaySnapshot) -> datetime | None:
    """Find when a day's last impression was shown, or its last feedback received; None of a day without."""
    columns = (("examples", "shown_at"), ("feedback", "received_at"))
    found = [
        snapshot.scan(table, part).select(pl.col(column).max()).collect().item()
        for part in range(snapshot.num_parts)
        for table, column in columns
    ]
    return max((at for at in found if at is not None), default=None)


def label_keys(task: TaskSpec) -> tuple[object, ...]:
    """Give what decides a task's labels: tasks that are equal in this have the same ones."""
    return tuple(getattr(task, key) for key in LABEL_KEYS)
