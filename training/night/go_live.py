"""A version goes live: users into the store, the bundle checked as a server loads it, the pointer moved."""

from contextlib import closing

from features.loading import Answering
from features.store import FeatureStore, open_store
from recsys.bundle import load_bundle
from recsys.config import StoreConfig
from recsys.manifest import read_manifest
from recsys.model.scorer import Scorer
from recsys.registry import Registry
from recsys.snapshot import DaySnapshot
from training.night.night import Night
from training.publish import publish


def go_live(
    night: Night,
    config: StoreConfig,
    snapshot: DaySnapshot,
    live: str,
    champion: str | None,
    *,
    same_users: bool = False,
) -> None:
    """Publish users, check the bundle, move the pointer, and collect what nobody needs.

    Run again it does nothing, unless the store has lost the users: then it gets them back.

    Args: same_users: the users are those of the champion, which the store has: none is written.
    """
    registry = night.registry
    current = registry.current()
    if current not in (None, champion, live) and str(current)[:10] >= str(night.date):
        return
    with closing(open_store(config, night.runs)) as store:
        pointed = store.current()
        if not (same_users and champion is not None and store.publish_same(live, champion)):
            publish(store, registry, live, snapshot)
        if current == live:
            store.activate(live, expect=pointed)
            return
        Answering.of(load_bundle(registry.path(live)), store, Scorer).check_golden()
        # The store first: where several hosts publish to one, the loser stops before its own pointer moves.
        store.activate(live, expect=pointed)
        registry.activate(live, expect=current)
        _collect(registry, store, live, config.keep)


def _collect(registry: Registry, store: FeatureStore, live: str, count: int) -> None:
    """Keep the newest versions and what servers have loaded; collect the rest of the store's bases."""
    keep = {live, *registry.kept(count)}
    # Events older than the oldest base that may still be read are in every base already.
    store.gc(keep, min(read_manifest(registry.path(v)).snapshot_at_ms for v in keep))
