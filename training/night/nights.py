"""Several nights in a row, as `recsys nightly` runs them."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from features.validation.ingest import parse_codes
from recsys.config import Period, RunConfig, period_start
from recsys.log import InteractionLog
from recsys.options import DayRange
from recsys.stages import Reuse
from training.night.explain import DryRun, explain_night
from training.night.extent import Part
from training.night.night import Night, NightResult, StoppedNight, TrainResult
from training.night.run import run_night, stop_night, train_night
from training.progress import say
from training.threads import use_threads


def run_nights(
    config: RunConfig, log: Path, runs: Path, days: DayRange, *, accept: str = "", part: Part | None = None
) -> Iterator[NightResult | StoppedNight]:
    """Run the nights from the first to the last day, one a period, and give each result as it comes.

    Args: accept: findings that may pass, as `--accept-findings` writes them; part: which stages run.
    Raises: ConfigError, DataError, BundleError, StoreError or RegistryError; the nights before stay done.
    """
    use_threads(config.training.threads)
    part = part or Part()
    for day in nights_between(days.first, days.last, config.period):
        night = Night(config=config, log=InteractionLog(log), runs=runs, date=day, reuse=part.reuse(say))
        _accept(night, accept)
        if part.stop_after is None or part.has_verdict:
            yield run_night(night, start_at=part.start_at, stop_after=part.stop_after)
        else:
            yield stop_night(night, part.stop_after, start_at=part.start_at)


def explain_nights(config: RunConfig, log: Path, runs: Path, days: DayRange, part: Part) -> Iterator[DryRun]:
    """Say what each night would do now; of nights in a row, as if the one before were not run first.

    Raises: as `run_nights`.
    """
    for day in nights_between(days.first, days.last, config.period):
        night = Night(config=config, log=InteractionLog(log), runs=runs, date=day)
        yield explain_night(night, part)


def train_one(config: RunConfig, log: Path, runs: Path, day: date | None, *, accept: str = "") -> TrainResult:
    """Run one night up to its evaluated bundle, as `recsys train` does.

    Args: day: default the log's last; accept: as `run_nights`.
    Raises: as `run_nights`, and RankError when one of several processes dies.
    """
    use_threads(config.training.threads)
    source = InteractionLog(log)
    last = day or source.require_days("impressions")[-1]
    night = Night(config=config, log=source, runs=runs, date=last, reuse=Reuse(say=say))
    _accept(night, accept)
    return train_night(night)


def _accept(night: Night, accept: str) -> None:
    for day, codes in parse_codes(accept, night.date).items():
        night.ingest.accepted.accept(day, codes, night.date)


def with_training(config: RunConfig, **options: Any) -> RunConfig:
    """Give the config with keys of `[training]` that the command line names; None: as the config says."""
    given = {key: value for key, value in options.items() if value is not None}
    return config.model_copy(update={"training": config.training.model_copy(update=given)})


def nights_between(first: date, last: date, period: Period) -> list[date]:
    """Give one night a period, on the last day asked for in it."""
    days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    return list({period_start(day, period): day for day in days}.values())
