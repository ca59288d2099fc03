"""One night: the table of stages, walked.

Every stage writes to a folder named by its inputs, or under a version's name, and is skipped when that is
there: a night run again does nothing, a night killed anywhere goes on where it was.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from features.store import STORES
from recsys.bundle import Bundle, load_bundle
from recsys.config import RunConfig
from recsys.errors import BundleError, ConfigError, DamagedStageError, UserKeyError
from recsys.model.sequence import ENCODERS
from recsys.model.trunks import TRUNKS
from recsys.records import Verdict
from recsys.registry import Registry
from recsys.shapes import ATTENTION
from recsys.stages import read_manifest
from recsys.user_key import UserKey, find_user_key, make_user_key, user_key_of
from recsys.vocabulary import Vocabulary
from training.balancing import build_balancer
from training.curves import check_writers
from training.gate import Decision
from training.night.anchor import anchor_before
from training.night.disk import require_room
from training.night.extent import PUBLISH, stages_between
from training.night.failures import told
from training.night.go_live import Pointers
from training.night.litter import collect_litter
from training.night.night import Night, NightResult, StoppedNight, TrainResult
from training.night.step import Stage, Step
from training.night.tries import attempts, holds_in_row
from training.progress import say
from training.publish import champion_before, evaluated_version


def run_night(night: Night, *, start_at: str | None = None, stop_after: str | None = None) -> NightResult:
    """Run one night.

    Args: start_at: stages before it are not run, what they made has to be there; stop_after: the last stage
    to run, at the earliest the one that gives the verdict.
    Raises: DataError, BundleError, StoreError or RegistryError; nothing is published then.
    """
    made = _walk(night, start_at, stop_after)
    decision: Decision = made.get("proved", made["decision"])
    promotes = decision.verdict is Verdict.PROMOTE
    return NightResult(
        date=night.date,
        decision=decision,
        evaluated=made["evaluated"],
        promoted=made.get("live") if promotes else None,
        ending=made.get("ending"),
        live=night.registry.current(),
        seconds=time.perf_counter() - made["began"],
        validation=made["validation"],
        attempts=attempts(night.registry, night.date),
        holds_in_row=holds_in_row(night.registry, night.date),
        page=night.page if "ending" in made else None,
    )


def stop_night(night: Night, stop_after: str, *, start_at: str | None = None) -> StoppedNight:
    """Run a night up to a stage before the verdict; args and errors as `run_night`."""
    made = _walk(night, start_at, stop_after)
    return StoppedNight(
        date=night.date, stopped_after=stop_after, seconds=time.perf_counter() - made["began"]
    )


def train_night(night: Night) -> TrainResult:
    """Run a night up to its evaluated bundle: nothing is compared, nothing goes live.

    Raises: as `run_night`.
    """
    made = _walk(night, None, "bundle")
    log = read_manifest(made["weights"])
    return TrainResult(
        date=night.date,
        version=made["evaluated"],
        choice=made["choice"],
        rows=log["rows"],
        losses=log["losses"],
        seconds=time.perf_counter() - made["began"],
    )


def _walk(night: Night, start_at: str | None, stop_after: str | None) -> dict[str, Any]:
    """Run the stages from one to another; give all that was made.

    A stage that turns out to be damaged when something is made of it is built again, and the rest goes on.
    """
    check_names(night.config)
    stages = stages_between(start_at, stop_after)
    with told("begin"), night.registry.locked("nightly", wait=False):
        collect_litter(night.runs, night.log.root)
        require_room(night)
        begun = begin(night, pointers=any(stage.name == PUBLISH for stage in stages))
        while True:
            try:
                return _once(night, stages, begun)
            except DamagedStageError as error:
                if night.reuse.ready:
                    raise
                say(f"night of {night.date}: {error}")


def _once(night: Night, stages: Sequence[Stage], begun: Mapping[str, Any]) -> dict[str, Any]:
    made = {**begun, "seconds": {}}
    for stage in stages:
        began = time.perf_counter()
        with told(stage.name):
            output = Step.of(stage, night, made).run()
        made["seconds"][stage.name] = time.perf_counter() - began
        if stage.output is not None:
            made[stage.output] = output
    return made


def begin(night: Night, *, pointers: bool) -> dict[str, Any]:
    """Give what the first stages take, and read what is live: it alone may give way when the night ends.

    Args: pointers: a version may go live.
    Raises: StoreError or BundleError before hours of work, not after: the store does not answer, or this code
    cannot read the live bundle.
    """
    began = time.perf_counter()
    registry = night.registry
    pointed = Pointers.read(night) if pointers else None
    champion = champion_before(registry, night.date)
    previous = _evaluated_bundle(registry, champion) if champion else None
    anchor = None
    if previous is not None and night.config.gate.anchor_days:
        anchor = anchor_before(registry, night.date, previous.version, night.config.gate.anchor_days)
    return {
        "began": began,
        "pointed": pointed,
        "champion": champion,
        "previous": previous,
        "anchor": anchor,
        "user_key": _user_key(night),
    }


def _user_key(night: Night) -> UserKey | None:
    """Read the key of users' hashes; the first night makes it, where its stages are not only looked at.

    Raises: BundleError when it is gone, though bundles need it: with another one none of them could be read.
    """
    known = user_key_of(night.runs)
    if known is None:
        for version in night.registry.versions():
            for file in (night.registry.path(version) / "vocabularies").glob("*.parquet"):
                if name := Vocabulary.name_of_key(file):
                    return find_user_key(file, name)
    return known if known is not None or night.reuse.look else make_user_key(night.runs)


def _evaluated_bundle(registry: Registry, champion: str) -> Bundle:
    version = evaluated_version(registry, champion)
    try:
        return load_bundle(registry.path(version))
    except UserKeyError:
        raise  # a bundle that is written again would need the key as well
    except BundleError as error:
        raise BundleError(
            f"{error}; `recsys nightly --date {version[:10]}` writes a damaged bundle again from its stages"
        ) from error


def check_names(config: RunConfig) -> None:
    """Refuse unknown names of trunk, history encoder, balancer, store and writers before hours of work.

    Raises: ConfigError listing the known names, or what has to be installed.
    """
    for where, name, known in (
        ("[model.trunk] name", config.model.trunk.name, TRUNKS),
        ("[model.history] encoder", config.model.history.encoder, (ATTENTION, *ENCODERS)),
        ("[store] url", config.store.url.split(":", 1)[0], STORES),
    ):
        if name not in known:
            raise ConfigError(f"{where} = {name!r} is unknown; known: {', '.join(sorted(known))}")
    build_balancer(config.training.balancing, {}, config.training.balancer)
    check_writers(config.training.writers)
