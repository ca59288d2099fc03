"""A log on disk and a bundle -> FusionReport: weights of the score, searched on days it has not seen."""

from pathlib import Path

from features.definitions import read_config
from recsys.bundle import Bundle
from recsys.config import build_fusion
from recsys.device import resolve_device
from recsys.errors import ConfigError
from recsys.fusion import FORMULAS, Fusion
from recsys.log import InteractionLog
from recsys.registry import Registry
from recsys.simulator.shop import SHOP_FILE, Shop
from training.evaluation.from_log import load_reproducible, read_days, require_version
from training.predict import BundlePredictor
from training.progress import bar
from training.threads import use_one_thread
from training.tune.fusion.fusion_report import FusionReport
from training.tune.fusion.search import with_share
from training.tune.fusion.tune import read_material, tune_fusion, unseen_days
from training.tune.study import Budget


def tune_fusion_on_log(
    log: Path,
    runs: Path,
    version: str,
    storage: Path,
    *,
    config: Path | None,
    days: int,
    trials: int,
    seconds: float | None,
    formula: str,
    top: int,
    seed: int,
) -> FusionReport:
    """Search the weights of a bundle's score on the last days of a log, with progress bars.

    Args: version: empty for the live one; storage: the search's SQLite file; config: of the weights to start
    from, default the bundle's; days: at most so many of the last; formula: empty for the current one;
    top: how many places count.
    Raises: ConfigError, DataError, RegistryError or BundleError.
    """
    if formula and formula not in FORMULAS:
        raise ConfigError(f"--formula {formula!r} is unknown; known: {', '.join(FORMULAS)}")
    registry = Registry(runs)
    bundle = load_reproducible(require_version(registry, version))
    use_one_thread()
    record = registry.record(bundle.version)
    weights, sources_of = _start(bundle, config)
    predictor, source = BundlePredictor(bundle, resolve_device("auto")), InteractionLog(log)
    span = unseen_days(bundle, record, source, days)
    known = read_days(bundle, log, runs, max(span[1], *source.require_days("feedback")))
    material = read_material(predictor, record, source, known, span)
    current = with_share(weights, material.searched, sources_of)
    simulated = (log / "truth" / SHOP_FILE).is_file()
    with bar("search") as on_trial:
        return tune_fusion(
            material,
            current,
            formula or current.formula,
            storage,
            Budget.of(trials, seconds),
            k=top,
            seed=seed,
            shop=Shop.from_log(log) if simulated else None,
            on_trial=on_trial,
        )


def _start(bundle: Bundle, config: Path | None) -> tuple[Fusion, Fusion]:
    """Give the heads' weights to start from, a config's or the bundle's own, and whose sources stay beside
    them: the bundle's, unless the config says that nights give none.

    Raises: ConfigError for a config of other tasks than the bundle's.
    """
    own = bundle.manifest.fusion
    if config is None:
        return own, own
    read = read_config(config)
    given = build_fusion(read.tasks, read.fusion)
    if set(given.terms) != set(own.terms):
        raise ConfigError(
            f"--config {config} has the tasks {', '.join(given.terms)}, {bundle.version} has "
            f"{', '.join(own.terms)}; pass the config that the bundle was made with"
        )
    return given, given if read.fusion.sources == "off" else own
