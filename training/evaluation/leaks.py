"""Which scored days made a bundle: its figures there are too good."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from recsys.config import Period, RunConfig, period_start
from recsys.manifest import Manifest
from recsys.records import NightRecord, Verdict
from training.night.plan import lag


class LeakCheck(BaseModel):
    """The days that made a bundle, beside the days that its heads are scored on."""

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
    chose: dict[str, tuple[date, ...]] = {}
    """What was chosen, the settings or the score -> scored days by whose labels `recsys tune` chose it."""
    promoted: tuple[date, ...] = ()
    """Scored days by whose labels the gate, or an update's, let the bundle go live."""

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
        found += [
            f"chose {what}: `recsys tune` compared by labels of {_span(days)}, so figures there are too "
            f"good; score days after {days[-1]}"
            for what, days in self.chose.items()
        ]
        if self.promoted:
            found.append(
                f"the gate's day: the bundle went live because of its figures on {_span(self.promoted)}, so "
                f"they are too good there; score days after {self.promoted[-1]}"
            )
        return found

    @property
    def chose_days(self) -> tuple[date, ...]:
        """Give the scored days by whose labels something was chosen."""
        return tuple(sorted({day for days in self.chose.values() for day in days}))

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        config: RunConfig,
        scored: Mapping[str, Sequence[date]],
        record: NightRecord | None = None,
    ) -> Self:
        """Derive what a bundle has seen from its date and whether it was refitted; see `training.night.plan`.

        Args: scored: task -> the days its head is scored on; record: of the night that made the bundle; None
        when nobody knows of a gate, as inside the gate itself.
        """
        night = date.fromisoformat(manifest.date)
        lags = {task.name: lag(task, config) for task in config.tasks}
        held_back = (0, 0) if manifest.refitted else (2, 1)
        learned = _learned(record, config)
        trained = {
            t: max(_last_day(night, g + held_back[0], config.period), learned) for t, g in lags.items()
        }
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
            chose=_chose(config, scored),
            promoted=_promoted(record, lags, config, scored),
        )


def _learned(record: NightRecord | None, config: RunConfig) -> date:
    """Give the last day that an update during the day learned labels of; the first of all days for none."""
    if record is None or record.known_until is None:
        return date.min
    return _day_before(record.known_until, config)


def _chose(config: RunConfig, scored: Mapping[str, Sequence[date]]) -> dict[str, tuple[date, ...]]:
    """Give, by what was chosen, the scored days in whose periods `recsys tune` compared."""
    found = {"settings": config.chosen.model_days, "the score's weights": config.chosen.fusion_days}
    overlaps = {what: _same_periods(days, scored, config.period) for what, days in found.items()}
    return {what: days for what, days in overlaps.items() if days}


def _promoted(
    record: NightRecord | None,
    lags: Mapping[str, int],
    config: RunConfig,
    scored: Mapping[str, Sequence[date]],
) -> tuple[date, ...]:
    """Give the scored days in whose periods a gate let the bundle go live."""
    if record is None or record.verdict is not Verdict.PROMOTE:
        return ()
    gated = record.gated or {t: _last_day(record.night, g, config.period) for t, g in lags.items()}
    days = list(gated.values())
    if record.compared_until is not None:
        days.append(_day_before(record.compared_until, config))
    return _same_periods(days, scored, config.period)


def _same_periods(
    days: Sequence[date], scored: Mapping[str, Sequence[date]], period: Period
) -> tuple[date, ...]:
    starts = {period_start(day, period) for day in days}
    every = {day for of_task in scored.values() for day in of_task}
    return tuple(sorted(day for day in every if period_start(day, period) in starts))


def _day_before(instant: datetime, config: RunConfig) -> date:
    """Give the business day that ends at an instant or holds it."""
    return (instant - timedelta(milliseconds=1)).astimezone(ZoneInfo(config.timezone)).date()


def _last_day(night: date, count: int, period: Period) -> date:
    """Give the last day of the period `count` periods before the night's; the night itself for 0."""
    for _ in range(count):
        night = period_start(night, period) - timedelta(days=1)
    return night


def _span(days: Sequence[date]) -> str:
    return str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]} ({len(days)} periods)"
