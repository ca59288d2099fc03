"""Which period is for what on a night: train, calibrate, evaluate. Nothing here touches data.

For a night of period n and a task whose window needs `lag` whole periods to close: train on periods <=
n-2-lag, calibrate on n-1-lag, evaluate on n-lag. A warm start learns, per task, new periods only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from recsys.config import PERIOD_S, RunConfig
from recsys.errors import DataError
from recsys.tasks import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class NightPlan:
    """Per task, the places of its days; ranges are inclusive, empty if first > last."""

    train: dict[str, tuple[int, int]]
    calibrate: dict[str, int]
    evaluate: dict[str, int]
    refit: dict[str, tuple[int, int]]
    trained_until: int
    """The last period that any task has trained on when the night is evaluated."""

    @property
    def train_periods(self) -> range:
        """Give every period that some task trains on."""
        return _hull(self.train)

    @property
    def refit_periods(self) -> range:
        """Give every period that some task continues on after PROMOTE."""
        return _hull(self.refit)


def plan_night(days: Sequence[date], config: RunConfig, learnt_until: date | None) -> NightPlan:
    """Plan the night of the last period.

    Args: learnt_until: `trained_until` of the weights a warm start continues from; None for a cold start.
    Raises: DataError when there are too few periods to train, calibrate and evaluate apart.
    """
    n = len(days) - 1
    lags = {t.name: lag(t, config) for t in config.tasks}
    needed = 3 + max(lags.values())
    if len(days) < needed:
        until = f" up to {days[-1]}" if days else ""
        raise DataError(
            f"the log has {len(days)} {config.period} period(s){until}, a night needs {needed}: "
            "to train, to calibrate, and to evaluate apart; add earlier days or run a later night"
        )
    first = max(0, n - 1 - config.training.max_days)
    if learnt_until is not None:
        first = next((i for i, d in enumerate(days) if d > learnt_until), n + 1)
    start = {t: first if learnt_until is None else first - g for t, g in lags.items()}
    return NightPlan(
        train={t: (max(0, start[t]), n - 2 - g) for t, g in lags.items()},
        calibrate={t: n - 1 - g for t, g in lags.items()},
        evaluate={t: n - g for t, g in lags.items()},
        refit={t: (n - 1 - g, n - g) for t, g in lags.items()},
        trained_until=n - 2,
    )


def lag(task: TaskSpec, config: RunConfig) -> int:
    """Count the periods a task's window needs to close."""
    return task.lag_periods(PERIOD_S[config.period])


def _hull(ranges: dict[str, tuple[int, int]]) -> range:
    used = [r for r in ranges.values() if r[0] <= r[1]]
    return range(min(a for a, _ in used), max(b for _, b in used) + 1) if used else range(0)
