"""Several nights in a row, as `recsys nightly` runs them."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from features.validation.ingest import parse_codes
from recsys.config import Period, RunConfig, period_start
from recsys.log import InteractionLog
from training.night.night import Night, NightResult, TrainResult
from training.night.run import run_night, train_night
from training.threads import use_threads


def run_nights(
    config: RunConfig, log: Path, runs: Path, first: date, last: date, *, accept: str, dry_run: bool
) -> Iterator[NightResult]:
    """Run the nights from the first to the last day, one a period, and give each result as it comes.

    Args: accept: findings that may pass, as `--accept-findings` writes them; dry_run: nothing goes live.
    Raises: ConfigError, DataError, BundleError, StoreError or RegistryError; the nights before stay done.
    """
    use_threads(config.training.threads)
    for day in nights_between(first, last, config.period):
        night = Night(config=config, log=InteractionLog(log), runs=runs, date=day)
        _accept(night, accept)
        yield run_night(night, dry_run=dry_run)


def train_one(config: RunConfig, log: Path, runs: Path, day: date | None, *, accept: str = "") -> TrainResult:
    """Run one night up to its evaluated bundle, as `recsys train` does.

    Args: day: default the log's last; accept: as `run_nights`.
    Raises: as `run_nights`, and RankError when one of several processes dies.
    """
    use_threads(config.training.threads)
    source = InteractionLog(log)
    last = day or source.require_days("impressions")[-1]
    night = Night(config=config, log=source, runs=runs, date=last)
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
