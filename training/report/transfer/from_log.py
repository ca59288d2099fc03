"""A log on disk and a config -> TransferReport."""

from datetime import date
from pathlib import Path

from recsys.config import RunConfig
from training.night.days import night_days
from training.progress import bar
from training.report.transfer.shared_or_alone import measure_transfer
from training.report.transfer.transfer_report import TransferReport


def transfer_on_log(
    config: RunConfig,
    log: Path,
    night: date | None,
    *,
    seeds: int,
    runs: Path | None,
    replicates: int,
    alpha: float,
) -> TransferReport:
    """Train the heads of a config together and alone on a night's days, with progress bars.

    Args: night: default the log's last day; seeds: trainings of each model; runs: its stages are used.
    Raises: ConfigError or DataError.
    """
    first = config.training.seed
    with night_days(config, log, night, runs) as days, bar("trainings") as on_progress:
        return measure_transfer(
            days,
            config,
            range(first, first + seeds),
            replicates=replicates,
            alpha=alpha,
            on_progress=on_progress,
        )
