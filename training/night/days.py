"""A log and a config -> the days that a night of that date would train on."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

from features.build import build_snapshots
from features.days import Days
from recsys.config import RunConfig
from recsys.log import InteractionLog
from recsys.stages import Stages
from training.night.run import check_names
from training.progress import bar
from training.threads import use_threads


@contextmanager
def night_days(config: RunConfig, log: Path, night: date | None, runs: Path | None) -> Iterator[Days]:
    """Build a night's days, with a progress bar; they are there until the block ends.

    Args: night: default the log's last day; runs: use and keep the stages there, else in a temporary folder.
    Raises: ConfigError for unknown names in the config; DataError for a log without the night's days.
    """
    check_names(config)
    use_threads(config.training.threads)
    source = InteractionLog(log)
    last = night or source.require_days("impressions")[-1]
    with ExitStack() as stack:
        folder = runs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-night-")))
        with bar("features") as on_period:
            days = build_snapshots(source, last, config, Stages(folder / "stages"), on_period)
        yield days
