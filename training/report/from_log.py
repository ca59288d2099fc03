"""A log on disk and two bundles -> ABReport."""

from datetime import date
from pathlib import Path

from recsys.device import resolve_device
from recsys.log import InteractionLog
from recsys.registry import Registry
from training.evaluation.from_log import load_reproducible, read_days, require_span
from training.predict import BundlePredictor
from training.progress import bar
from training.report.ab import compare
from training.report.ab_report import ABReport
from training.report.side import Side
from training.threads import use_one_thread


def compare_bundles(
    log: Path,
    runs: Path,
    versions: tuple[str, str],
    first: date,
    last: date,
    *,
    max_users: int | None,
    replicates: int,
    alpha: float,
    seed: int,
    baselines: bool,
) -> ABReport:
    """Compare two bundles on the same days of a log, with progress bars.

    Args: versions: A, usually the live one, and B; the others: as `training.report.ab.compare` takes them.
    Raises: ConfigError, DataError, RegistryError or BundleError; nothing is written then.
    """
    registry = Registry(runs)
    bundles = [load_reproducible(registry.require(version)) for version in versions]
    use_one_thread()
    source = InteractionLog(log)
    span = require_span(source, first, last)
    side_a, side_b = (
        Side(
            predictor=BundlePredictor(bundle, resolve_device("auto")),
            days=read_days(bundle, log, runs, span[1]),
            record=registry.record(bundle.version),
            log=source,
        )
        for bundle in bundles
    )
    with bar("compare") as on_progress:
        return compare(
            side_a,
            side_b,
            *span,
            max_users=max_users,
            replicates=replicates,
            alpha=alpha,
            seed=seed,
            baselines=baselines,
            on_progress=on_progress,
        )
