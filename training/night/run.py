"""One night: the table of stages, walked.

Every stage writes to a folder named by its inputs, or under a version's name, and is skipped when that is
there: a night run again does nothing, a night killed anywhere goes on where it was.
"""

import time
from typing import Any

from features.store import STORES
from recsys.bundle import load_bundle
from recsys.config import RunConfig
from recsys.errors import ConfigError
from recsys.model.trunks import TRUNKS
from recsys.stages import read_manifest
from training.balancing import build_balancer
from training.curves import check_writers
from training.night.night import Night, NightResult, TrainResult
from training.night.stages import STAGES
from training.night.step import Step
from training.publish import champion_before, evaluated_version


def run_night(night: Night, *, dry_run: bool = False) -> NightResult:
    """Run one night.

    Args: dry_run: stop before anything goes live.
    Raises: DataError, BundleError, StoreError or RegistryError; nothing is published then.
    """
    made = _walk(night, dry_run=dry_run)
    return NightResult(
        date=night.date,
        verdict=made["decision"].verdict,
        version=made["live"],
        evaluated=made["evaluated"],
        decision=made["decision"],
        seconds=time.perf_counter() - made["began"],
        validation=made["validation"],
    )


def train_night(night: Night) -> TrainResult:
    """Run a night up to its evaluated bundle: nothing is compared, nothing goes live.

    Raises: as `run_night`.
    """
    made = _walk(night, dry_run=True, until="evaluated")
    log = read_manifest(made["weights"])
    return TrainResult(
        date=night.date,
        version=made["evaluated"],
        choice=made["choice"],
        rows=log["rows"],
        losses=log["losses"],
        seconds=time.perf_counter() - made["began"],
    )


def _walk(night: Night, *, dry_run: bool, until: str | None = None) -> dict[str, Any]:
    """Run the stages, or those up to an output; give all that was made."""
    check_names(night.config)
    with night.registry.locked("nightly", wait=False):
        made = begin(night, dry_run=dry_run)
        for stage in STAGES:
            output = Step.of(stage, night, made).run()
            if stage.output is not None:
                made[stage.output] = output
            if until is not None and stage.output == until:
                break
    return made


def begin(night: Night, *, dry_run: bool) -> dict[str, Any]:
    """Give what the first stages take.

    Raises: BundleError when this code cannot read the live bundle: before hours of work, not after.
    """
    began = time.perf_counter()
    registry = night.registry
    champion = champion_before(registry, night.date)
    previous = load_bundle(registry.path(evaluated_version(registry, champion))) if champion else None
    return {"began": began, "dry_run": dry_run, "champion": champion, "previous": previous}


def check_names(config: RunConfig) -> None:
    """Refuse unknown names of trunk, balancer, store and writers before hours of work.

    Raises: ConfigError listing the known names, or what has to be installed.
    """
    for where, name, known in (
        ("[model.trunk] name", config.model.trunk.name, TRUNKS),
        ("[store] url", config.store.url.split(":", 1)[0], STORES),
    ):
        if name not in known:
            raise ConfigError(f"{where} = {name!r} is unknown; known: {', '.join(sorted(known))}")
    build_balancer(config.training.balancing, {}, config.training.balancer)
    check_writers(config.training.writers)
