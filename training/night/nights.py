"""Several nights in a row, as `recsys nightly` runs them."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from features.validation.ingest import parse_codes
from recsys.config import Period, RunConfig, period_start
from recsys.log import InteractionLog
from training.night.night import Night, NightResult
from training.night.run import run_night
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
        for accepted_day, codes in parse_codes(accept, day).items():
            night.ingest.accepted.accept(accepted_day, codes, day)
        yield run_night(night, dry_run=dry_run)


def nights_between(first: date, last: date, period: Period) -> list[date]:
    """Give one night a period, on the last day asked for in it."""
    days = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    return list({period_start(day, period): day for day in days}.values())
