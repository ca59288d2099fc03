"""Which days a bundle has already seen: the first thing to check before its figures are believed."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Self

from pydantic import BaseModel, ConfigDict

from recsys.bundle import Manifest
from recsys.config import Period, RunConfig, period_start
from training.night import lag


class LeakCheck(BaseModel):
    """What a bundle learnt from, against the days it is scored on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trained_until: date
    """First day of the last period that some head learnt from."""
    calibrated_until: date
    """First day of the last period whose labels fitted a calibrator."""
    overlaps_training: tuple[date, ...]
    """Scored days whose labels some head has learnt: their figures are no evidence."""
    overlaps_calibration: tuple[date, ...]
    """Scored days whose labels fitted a calibrator and no head: log loss and ECE there are flattered."""

    @property
    def clean(self) -> bool:
        """Tell whether every scored day was unseen."""
        return not (self.overlaps_training or self.overlaps_calibration)

    def warnings(self) -> list[str]:
        """Say in words what is wrong; empty when nothing is."""
        found = []
        if self.overlaps_training:
            found.append(
                f"overlaps training: the bundle learnt from days up to {self.trained_until}, so its "
                f"figures on {_span(self.overlaps_training)} are no evidence; score days after "
                f"{self.trained_until}"
            )
        if self.overlaps_calibration:
            found.append(
                f"overlaps calibration: labels of {_span(self.overlaps_calibration)} fitted the calibration, "
                f"so log loss and ECE there are flattered; score days after {self.calibrated_until}"
            )
        return found

    @classmethod
    def of(cls, manifest: Manifest, config: RunConfig, scored: Sequence[date]) -> Self:
        """Derive what a bundle has seen from its date and whether it was finalised; see `training.night`."""
        night = period_start(date.fromisoformat(manifest.date), config.period)
        nearest = min(lag(task, config) for task in config.tasks)
        trained = periods_before(night, nearest + (0 if manifest.finalised else 2), config.period)
        calibrated = periods_before(night, nearest + (0 if manifest.finalised else 1), config.period)
        starts = {day: period_start(day, config.period) for day in scored}
        return cls(
            trained_until=trained,
            calibrated_until=calibrated,
            overlaps_training=tuple(d for d in scored if starts[d] <= trained),
            overlaps_calibration=tuple(d for d in scored if trained < starts[d] <= calibrated),
        )


def periods_before(start: date, count: int, period: Period) -> date:
    """Give the first day of the period that lies `count` periods before the one starting at `start`."""
    for _ in range(count):
        start = period_start(start - timedelta(days=1), period)
    return start


def _span(days: Sequence[date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]} ({len(days)} periods)"
