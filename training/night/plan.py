"""Which day is for what on a night: train, calibrate, evaluate.

A task whose window needs `lag` whole periods to close is evaluated on the latest day with impressions that
lies at least so many periods before the night's own, calibrated on the one before, trained on those before
that. Days without impressions (a shop that is closed on Sundays) are passed over; lags count them. A warm
start trains, per task, on new days only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from features.days import Days
from recsys.config import PERIOD_S, RunConfig
from recsys.errors import DataError
from recsys.tasks import TaskSpec

KEYS = ("period", "tasks.name", "tasks.window", "training.max_days")
"""The keys of the config that decide a plan."""
NEEDED = 3
"""Days with impressions: to train, to calibrate and to evaluate on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NightPlan:
    """Per task, the places of its days; ranges are inclusive, empty if first > last."""

    train: dict[str, tuple[int, int]]
    calibrate: dict[str, int]
    evaluate: dict[str, int]
    refit: dict[str, tuple[int, int]]
    trained_until: dict[str, date]
    """The last day that each task has trained on when the night is evaluated."""

    @property
    def train_periods(self) -> range:
        """Give every period that some task trains on."""
        return _hull(self.train)

    @property
    def refit_periods(self) -> range:
        """Give every period that some task continues on after PROMOTE."""
        return _hull(self.refit)


def plan_night(days: Days, config: RunConfig, trained_until: Mapping[str, date] | None) -> NightPlan:
    """Plan the night of the last day.

    Args: trained_until: of the weights that a warm start continues from; None for a cold start.
    Raises: DataError when a task has too few days with impressions to train, calibrate and evaluate apart.
    """
    filled = [i for i in range(len(days)) if days.num_impressions(i)]
    lags = {t.name: lag(t, config) for t in config.tasks}
    train, calibrate, evaluate = {}, {}, {}
    for task, periods in lags.items():
        closed = [i for i in filled if i <= days.last - periods]
        if len(closed) < NEEDED:
            raise DataError(_too_few(days, filled, config, task, periods))
        calibrate[task], evaluate[task] = closed[-2], closed[-1]
        train[task] = (_first_day(days, filled, config, task, periods, trained_until), closed[-3])
    return NightPlan(
        train=train,
        calibrate=calibrate,
        evaluate=evaluate,
        refit={t: (calibrate[t], evaluate[t]) for t in lags},
        trained_until={
            t: max(days[last].day, (trained_until or {}).get(t, date.min)) for t, (_, last) in train.items()
        },
    )


def lag(task: TaskSpec, config: RunConfig) -> int:
    """Count the periods a task's window needs to close."""
    return task.lag_periods(PERIOD_S[config.period])


def _first_day(
    days: Days,
    filled: list[int],
    config: RunConfig,
    task: str,
    periods: int,
    trained_until: Mapping[str, date] | None,
) -> int:
    """Give the place of the first day that a task trains on: the first new one, or as far back as it may."""
    if trained_until is None:
        earlier = filled[:-2]
        return earlier[max(0, len(earlier) - config.training.max_days)]
    if task in trained_until:
        return sum(day <= trained_until[task] for day in days.dates)
    # A new task begins where the others have their first new day.
    return max(0, sum(day <= max(trained_until.values()) for day in days.dates) - periods)


def _too_few(days: Days, filled: list[int], config: RunConfig, task: str, periods: int) -> str:
    closed = [days[i].day for i in filled if i <= days.last - periods]
    empty = [str(days[i].day) for i in range(len(days)) if i not in filled]
    found = f"{len(closed)} such {config.period} period(s)"
    if closed:
        found += f", {closed[0]} to {closed[-1]}"
    if empty:
        found += f"; without impressions: {', '.join(empty[:7])}{', …' if len(empty) > 7 else ''}"
    return (
        f"the night of {days[days.last].day} cannot train, calibrate and evaluate {task!r} apart: it needs "
        f"{NEEDED} days with impressions and closed label windows ({periods} period(s) back), and the log "
        f"has {found}; add earlier days or run a later night"
    )


def _hull(ranges: dict[str, tuple[int, int]]) -> range:
    used = [r for r in ranges.values() if r[0] <= r[1]]
    return range(min(a for a, _ in used), max(b for _, b in used) + 1) if used else range(0)
