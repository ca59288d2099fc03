"""Which day is for what on a night: train, calibrate, evaluate.

A task whose window needs `lag` whole periods to close is evaluated on the latest day with impressions that
lies at least so many periods before the night's own, calibrated on the one before, trained on those before
that. Days without impressions (a shop that is closed on Sundays) are passed over; lags count them. A warm
start trains, per task, on new days only; a task that came since catches up first, on the days before them. A
night starts cold when nothing can be continued, or when `[training] cold_restart` says that it is time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Self

from features.days import Days
from recsys.config import PERIOD_S, RunConfig, periods_between
from recsys.errors import DataError
from recsys.records import NightRecord
from recsys.tasks import HEAD_KEYS, TaskSpec, new_heads

KEYS = (
    "period",
    "tasks.window",
    "training.max_days",
    "training.cold_restart",
    *(f"tasks.{key}" for key in HEAD_KEYS),
)
"""The keys of the config that decide a plan."""
NEVER = (0, -1)
"""A range without a period."""
NEEDED = 3
"""Days with impressions: to train, to calibrate and to evaluate on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightPlan:
    """Per task, the places of its days; ranges are inclusive, empty if first > last."""

    cold_since: date
    """The night on which the lineage of these weights started cold: this one, or an earlier one."""
    cold: bool
    restart: bool
    """Whether it is cold because `[training] cold_restart` says so."""
    train: dict[str, tuple[int, int]]
    catch_up: dict[str, tuple[int, int]]
    """The days that the others know already, of tasks that came since, and of all where inputs did: what came
    learns them first, alone."""
    new_heads: tuple[str, ...]
    """The tasks that came since the weights that the night goes on from."""
    new_inputs: tuple[str, ...]
    """The inputs that did."""
    calibrate: dict[str, int]
    evaluate: dict[str, int]
    refit: dict[str, tuple[int, int]]
    trained_until: dict[str, date]
    """The last day that each task has trained on when the night is evaluated."""
    gated: dict[str, date]
    """The day that each task is evaluated on."""

    @property
    def first(self) -> int:
        """Give the place of the first day that anything is learned, calibrated or evaluated on."""
        ranges = [r for r in (*self.train.values(), *self.catch_up.values()) if r[0] <= r[1]]
        return min([r[0] for r in ranges] + list(self.calibrate.values()))

    @property
    def train_periods(self) -> range:
        """Give every period that some task trains on."""
        return hull(self.train)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What is known of weights that a night may continue."""

    trained_until: Mapping[str, date]
    """Per task whose head can go on, the last day that it has learned."""
    cold_since: date
    new_inputs: tuple[str, ...] = ()
    """Inputs of tonight's config that they do not have."""

    @classmethod
    def of(
        cls,
        record: NightRecord,
        before: Sequence[TaskSpec],
        tasks: Sequence[TaskSpec],
        new_inputs: tuple[str, ...] = (),
    ) -> Self:
        """Read it from a record. Args: before: the tasks that the night of the record was run with."""
        new = new_heads(tasks, before)
        known = {task.name for task in tasks if task.name not in new}
        until = {task: day for task, day in record.trained_until.items() if task in known}
        return cls(trained_until=until, cold_since=record.cold_since, new_inputs=new_inputs)


def plan_night(days: Days, config: RunConfig, lineage: Lineage | None) -> NightPlan:
    """Plan the night of the last day.

    Args: lineage: of the live weights; None when there are none.
    Raises: DataError when a task has too few days with impressions to train, calibrate and evaluate apart.
    """
    night = days[days.last].day
    until = lineage.trained_until if lineage is not None else {}
    new_inputs = lineage.new_inputs if lineage is not None else ()
    restart = lineage is not None and bool(until) and _is_restart(night, lineage, config)
    if restart:
        until = {}
    filled = [i for i in range(len(days)) if days.num_impressions(i)]
    require_days(days.dates, filled, config)
    lags = {t.name: lag(t, config) for t in config.tasks}
    train: dict[str, tuple[int, int]] = {}
    catch_up: dict[str, tuple[int, int]] = {}
    calibrate, evaluate = {}, {}
    for task, periods in lags.items():
        closed = _closed(filled, len(days), periods)
        calibrate[task], evaluate[task] = closed[-2], closed[-1]
        first, last = _first_day(filled, config), closed[-3]
        if until:
            # A day is learned by all heads at once from where the others have their first new one.
            new = sum(day <= until.get(task, max(until.values())) for day in days.dates)
            if (task not in until or new_inputs) and first < min(new, last + 1):
                catch_up[task] = (first, min(new - 1, last))
            first = new
        train[task] = (first, last)
    return NightPlan(
        cold_since=lineage.cold_since if lineage is not None and until else night,
        cold=not until,
        restart=restart,
        train=train,
        catch_up=catch_up,
        new_heads=tuple(task for task in lags if until and task not in until),
        new_inputs=new_inputs if until else (),
        calibrate=calibrate,
        evaluate=evaluate,
        refit={t: (calibrate[t], evaluate[t]) for t in lags},
        gated={task: days[i].day for task, i in evaluate.items()},
        trained_until={t: max(days[last].day, until.get(t, date.min)) for t, (_, last) in train.items()},
    )


def require_days(dates: Sequence[date], filled: Sequence[int], config: RunConfig) -> None:
    """Check that there are enough days to train, calibrate and evaluate apart.

    Args: dates: of all days up to the night; filled: the places of those with impressions.
    Raises: DataError naming the first task that has too few, and what there is.
    """
    for task in config.tasks:
        periods = lag(task, config)
        if len(_closed(filled, len(dates), periods)) < NEEDED:
            raise DataError(_too_few(dates, filled, config, task.name, periods))


def _closed(filled: Sequence[int], num_days: int, periods: int) -> list[int]:
    """List the days with impressions whose label windows have closed."""
    return [i for i in filled if i < num_days - periods]


def lag(task: TaskSpec, config: RunConfig) -> int:
    """Count the periods a task's window needs to close."""
    return task.lag_periods(PERIOD_S[config.period])


def _first_day(filled: list[int], config: RunConfig) -> int:
    """Give the place of the first day that a cold start learns: as far back as it may."""
    earlier = filled[:-2]
    return earlier[max(0, len(earlier) - config.training.max_days)]


def _is_restart(night: date, lineage: Lineage, config: RunConfig) -> bool:
    """Tell whether a whole number of restart intervals has passed.

    A restart that the gate holds is tried again one interval later, not on every night: warm nights go on.
    """
    every = config.training.cold_restart
    passed = periods_between(lineage.cold_since, night, config.period)
    return every > 0 and passed > 0 and passed % every == 0


def _too_few(dates: Sequence[date], filled: Sequence[int], config: RunConfig, task: str, periods: int) -> str:
    closed = [dates[i] for i in _closed(filled, len(dates), periods)]
    empty = [str(dates[i]) for i in range(len(dates)) if i not in filled]
    found = f"{len(closed)} such {config.period} period(s)"
    if closed:
        found += f", {closed[0]} to {closed[-1]}"
    if empty:
        found += f"; without impressions: {', '.join(empty[:7])}{', …' if len(empty) > 7 else ''}"
    return (
        f"the night of {dates[-1]} cannot train, calibrate and evaluate {task!r} apart: it needs "
        f"{NEEDED} days with impressions and closed label windows ({periods} period(s) back), and the log "
        f"has {found}; add earlier days or run a later night"
    )


def hull(ranges: Mapping[str, tuple[int, int]]) -> range:
    """Give every period from the first to the last of some tasks' ranges."""
    used = [r for r in ranges.values() if r[0] <= r[1]]
    return range(min(a for a, _ in used), max(b for _, b in used) + 1) if used else range(0)
