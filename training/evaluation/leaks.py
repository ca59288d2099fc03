"""Which scored days a bundle was trained or calibrated on: its figures there are too good."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Self

from pydantic import BaseModel, ConfigDict

from recsys.config import Period, RunConfig, period_start
from recsys.manifest import Manifest
from training.night.plan import lag


class LeakCheck(BaseModel):
    """The days a bundle was trained on, beside the days its heads are scored on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trained_until: date
    """Last day that some head was trained on."""
    calibrated_until: date
    """Last day whose labels fitted a calibrator."""
    overlaps_training: tuple[date, ...]
    """Scored days whose labels trained the head itself: figures on them are no evidence."""
    overlaps_shared: tuple[date, ...]
    """Scored days whose labels trained other heads, and so the shared trunk: figures are too good."""
    overlaps_calibration: tuple[date, ...]
    """Scored days whose labels fitted the head's calibrator: log loss and ECE are too good."""

    @property
    def clean(self) -> bool:
        """Tell whether every scored day was unseen."""
        return not self.warnings()

    def warnings(self) -> list[str]:
        """Say in words what is wrong; empty when nothing is."""
        found = []
        if self.overlaps_training:
            found.append(
                f"overlaps training: the bundle was trained on days up to {self.trained_until}, so its "
                f"figures on {_span(self.overlaps_training)} are no evidence; score days after "
                f"{self.trained_until}"
            )
        if self.overlaps_shared:
            found.append(
                f"overlaps training of other heads: they trained the shared trunk on days up to "
                f"{self.trained_until}, so figures on {_span(self.overlaps_shared)} are too good; score days "
                f"after {self.trained_until}"
            )
        if self.overlaps_calibration:
            found.append(
                f"overlaps calibration: labels of {_span(self.overlaps_calibration)} fitted the calibration, "
                f"so log loss and ECE there are too good; score days after {self.calibrated_until}"
            )
        return found

    @classmethod
    def of(cls, manifest: Manifest, config: RunConfig, scored: Mapping[str, Sequence[date]]) -> Self:
        """Derive what a bundle has seen from its date and whether it was refitted; see `training.night.plan`.

        Args: scored: task -> the days its head is scored on.
        """
        night = date.fromisoformat(manifest.date)
        lags = {task.name: lag(task, config) for task in config.tasks}
        held_back = (0, 0) if manifest.refitted else (2, 1)
        trained = {t: _last_day(night, g + held_back[0], config.period) for t, g in lags.items()}
        calibrated = {t: _last_day(night, g + held_back[1], config.period) for t, g in lags.items()}
        newest = max(trained.values())
        own, shared, fitted = set(), set(), set()
        for task, days in scored.items():
            for day in days:
                start = period_start(day, config.period)
                own |= {day} if start <= trained[task] else set()
                shared |= {day} if trained[task] < start <= newest else set()
                fitted |= {day} if trained[task] < start <= calibrated[task] else set()
        return cls(
            trained_until=newest,
            calibrated_until=max(calibrated.values()),
            overlaps_training=tuple(sorted(own)),
            overlaps_shared=tuple(sorted(shared - own)),
            overlaps_calibration=tuple(sorted(fitted - own)),
        )


def _last_day(night: date, count: int, period: Period) -> date:
    """Give the last day of the period `count` periods before the night's; the night itself for 0."""
    for _ in range(count):
        night = period_start(night, period) - timedelta(days=1)
    return night


def _span(days: Sequence[date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]} ({len(days)} periods)"
