"""The checks of a night, alone: one day of a log, without a night after it."""

from datetime import date
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from features.build import build_snapshots
from features.validation.ingest import ACCEPTED, Acceptances, Ingest
from features.validation.report import Validation
from recsys.config import RunConfig
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.stages import Stages


def validate_day(log: InteractionLog, day: date, config: RunConfig, folder: Path) -> Validation:
    """Check one day; build what its checks need under a runs folder.

    Raises: DataError when the log has nothing of that day.
    """
    logged = log.require_days("impressions")
    if day not in logged and config.period == "P1D":
        raise DataError(f"{day} has no impressions in {log.root}, which has {logged[0]} to {logged[-1]}")
    stages = Stages(folder / "stages")
    accepted = Acceptances(folder / "registry" / ACCEPTED)
    ingest = Ingest(log=log, config=config, stages=stages, accepted=accepted)
    broken = ingest.check_files(day)
    if broken is not None:
        return broken
    with Progress(console=Console(stderr=True), transient=True) as progress:
        features, profiles = (progress.add_task(name) for name in ("features", "profiles"))
        days = build_snapshots(
            log, day, config, stages, lambda n, of: progress.update(features, completed=n, total=of)
        )
        return ingest.check_days(
            days, days[-1].day, lambda n, of: progress.update(profiles, completed=n, total=of)
        )
