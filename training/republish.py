"""A version that is to go live by hand has its users in the store: they are there, or are published again.

Without them every user would be unknown to it. The features of its night lie in RUNS/stages, if nobody
has removed them.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from typing import TYPE_CHECKING

from features.store import FeatureStore, open_store
from recsys.config import StoreConfig
from recsys.errors import MissingUsersError, StoreError
from recsys.registry import Registry
from recsys.stages import MANIFEST, Stages, read_manifest

if TYPE_CHECKING:
    from recsys.snapshot import DaySnapshot

_WRITERS = ("refit_bundle", "bundle")
"""Stages of a night that write a version."""


@contextmanager
def with_users(
    registry: Registry, config: StoreConfig, *, must: bool = True
) -> Iterator[Callable[[str], None]]:
    """Give what publishes a version's users again where the store has lost them.

    Args: must: False: a store that does not answer stops nobody, as a dead store stops no answer.
    """
    with closing(open_store(config, registry.runs)) as store:

        def ensure(version: str) -> None:
            try:
                written = ensure_users(store, registry, version)
            except MissingUsersError:
                raise
            except StoreError as error:
                if must:
                    raise
                _say(f"whether the store has the users of {version} cannot be told: {error}")
                return
            if written is not None:
                _say(f"{version}: the store had lost its users, and has them again")

        yield ensure


def ensure_users(store: FeatureStore, registry: Registry, version: str) -> int | None:
    """Publish a version's users unless the store has them; give how many were written, None: it had them.

    Raises: MissingUsersError when the features of its night are gone; another StoreError when the store does
    not answer.
    """
    try:
        store.get_many(version, ())
        return None
    except MissingUsersError:
        pass
    of_night = version
    record = registry.record(version)
    while record is not None and record.known_until is not None and record.champion is not None:
        of_night = record.champion  # an update has the users of the version that it went on from
        if store.publish_same(version, of_night):
            return 0
        record = registry.record(of_night)
    snapshot = _snapshot_of(registry, of_night)
    if snapshot is None:
        raise MissingUsersError(
            f"the store has no users of {version}, and {registry.runs / 'stages'} has no features of its "
            f"night any more; run `recsys nightly --date {version[:10]} --stop-after refit_bundle` to build "
            "them, and activate again, or choose another version"
        )
    Stages(registry.runs / "stages").require([snapshot.path])
    # A rollback hardly ever comes here, and torch alone takes seconds to import.
    from training.publish import publish

    return publish(store, registry, version, snapshot)


def _snapshot_of(registry: Registry, version: str) -> "DaySnapshot | None":
    """Find the features that a night wrote a version of."""
    from recsys.snapshot import DaySnapshot

    stages = registry.runs / "stages"
    for name in _WRITERS:
        for manifest in (stages / name).glob(f"[!.]*/{MANIFEST}"):
            said = read_manifest(manifest.parent)
            if said.get("version") != version:
                continue
            folder = stages / "features" / str(said["inputs"]["inputs"]["days"])
            if (folder / MANIFEST).is_file():
                return DaySnapshot(date.fromisoformat(read_manifest(folder)["day"]), folder)
    return None


def _say(sentence: str) -> None:
    from training.progress import say

    say(sentence)
