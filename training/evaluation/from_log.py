"""A log on disk, a frozen bundle and days -> EvalReport, and what every report of a bundle begins with."""

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from features.build import build_snapshots
from features.days import Days
from features.loading import Answering
from features.store import open_store
from recsys.bundle import Bundle, load_bundle
from recsys.config import ExecutionConfig, StoreConfig
from recsys.device import resolve_device
from recsys.errors import ConfigError, DataError, RegistryError
from recsys.log import InteractionLog
from recsys.model.scorer import Scorer
from recsys.registry import Registry
from recsys.stages import Stages
from training.evaluation.eval_report import EvalReport
from training.evaluation.evaluate import evaluate, evaluated_periods
from training.predict import BundlePredictor
from training.progress import bar
from training.threads import use_one_thread


def evaluate_bundle(
    log: Path,
    runs: Path,
    version: str,
    first: date,
    last: date,
    *,
    labels_until: date | None,
    max_users: int | None,
    seed: int,
    baselines: bool,
    fitted: bool,
    lightgbm: bool,
) -> EvalReport:
    """Score a frozen bundle on days of a log, with progress bars.

    Args: version: empty for the live one; labels_until: default the last day scored; the others: as
    `training.evaluation.evaluate.evaluate` takes them.
    Raises: ConfigError, DataError, RegistryError or BundleError; nothing is written then.
    """
    registry = Registry(runs)
    bundle = load_reproducible(require_version(registry, version))
    use_one_thread()
    span = require_span(InteractionLog(log), first, last)
    days = read_days(bundle, log, runs, _labels_until(InteractionLog(log), span[1], labels_until))
    with bar("evaluate") as on_progress:
        return evaluate(
            BundlePredictor(bundle, resolve_device("auto")),
            days,
            evaluated_periods(days, bundle.config.tasks, *span),
            record=registry.record(bundle.version),
            max_users=max_users,
            seed=seed,
            baselines=baselines,
            fitted=fitted,
            lightgbm=lightgbm,
            on_progress=on_progress,
        )


def require_version(registry: Registry, version: str) -> Path:
    """Give a version's folder; no version means the live one.

    Raises: RegistryError when there is no such version, or none is live.
    """
    version = version or registry.current() or ""
    if not version:
        raise RegistryError(f"no bundle is live in {registry.folder}; pass --bundle, or run `recsys nightly`")
    return registry.require(version)


def load_reproducible(path: Path) -> Bundle:
    """Load a bundle and answer its golden requests: one that this code reads differently is not scored.

    Raises: BundleError when it is corrupt, or does not give here what it gave when it was written.
    """
    bundle = load_bundle(path)
    # Golden requests carry their own users: an empty store will do.
    with TemporaryDirectory() as empty:
        Answering.of(bundle, open_store(StoreConfig(), Path(empty)), Scorer).check_golden()
    return bundle


def require_span(log: InteractionLog, first: date, last: date) -> tuple[date, date]:
    """Check a span of days; the last one is cut to the last day of the log.

    Raises: ConfigError when it runs backwards; DataError when the log has no impression in it or no feedback.
    """
    if first > last:
        raise ConfigError(f"--from {first} is after --to {last}; swap them")
    days = log.require_days("impressions")
    if not any(first <= day <= last for day in days):
        raise DataError(
            f"{log.root} has no impressions from {first} to {last}: it has {days[0]} to {days[-1]}; "
            "choose days among these"
        )
    # A label of a day the log does not reach would look like "nothing happened".
    return first, min(last, max(days[-1], *log.require_days("feedback")))


def _labels_until(log: InteractionLog, last: date, asked: date | None) -> date:
    if asked is None:
        return last
    if asked < last:
        raise ConfigError(f"--labels-until {asked} is before the last day scored, {last}; choose a later one")
    return min(asked, max(last, *log.require_days("feedback")))


def read_days(bundle: Bundle, log: Path, runs: Path, until: date) -> Days:
    """Build what is missing of the days that a bundle's features need, with a progress bar."""
    with bar("features") as on_period:
        return build_snapshots(
            InteractionLog(log), until, bundle.config, Stages(runs / "stages"), on_period, ExecutionConfig()
        )
