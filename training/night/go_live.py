"""A version goes live: users into the store, a server that answers with it, the pointers moved, once.

users ──▶ golden requests ──▶ a server of its own ──▶ pointers ──▶ the running servers answer with it ──▶ gc
                                  │ else never live                     │ else rolled back

Only what was live when the night began gives way. Who moved a pointer meanwhile chose what is live now, and
who rolled a version back does not want it: the night then holds, and says so.
"""

from contextlib import closing
from dataclasses import dataclass
from typing import Self

from features.loading import Answering
from features.store import FeatureStore, open_store
from recsys.bundle import load_bundle
from recsys.config import StoreConfig
from recsys.errors import MovedError, StoreError, StoreMovedError
from recsys.manifest import read_manifest
from recsys.model.scorer import Scorer
from recsys.records import Verdict
from recsys.registry import Registry
from recsys.snapshot import DaySnapshot
from training.night.night import Ending, Night
from training.night.post_check import await_servers, check_in_server
from training.publish import publish
from training.republish import ensure_users


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointers:
    """What was live, and what the store pointed at, at one instant."""

    registry: str | None
    store: str | None

    @classmethod
    def read(cls, night: Night) -> Self:
        """Read both now.

        Raises: StoreError when the store does not answer, or another runs folder publishes to it;
        RegistryError for a damaged pointer.
        """
        with closing(open_store(night.config.store, night.runs)) as store:
            found = cls(registry=night.registry.current(), store=store.current())
        if found.store is not None and not night.registry.knows(found.store):
            raise StoreError(
                f"the store points at {found.store}, which {night.runs} never had: another runs folder "
                "publishes to it, and each would collect the other's users; give this one a store, or a "
                f"[store] namespace, of its own (now {night.config.store.namespace!r})"
            )
        return found


def go_live(
    night: Night,
    config: StoreConfig,
    snapshot: DaySnapshot,
    live: str,
    champion: str | None,
    began: Pointers,
    *,
    same_users: bool = False,
) -> Ending:
    """Publish users, check the bundle, move the pointers, and collect what nobody needs.

    Run again it does nothing, unless the store has lost the users: then it gets them back.

    Args: began: as the night began; same_users: the users are those of the champion, which the store has:
    none is written.
    """
    registry = night.registry
    current = registry.current()
    if current != live:
        ending = stays(night, live, champion, began)
        if ending is not None:
            return ending
    with closing(open_store(config, night.runs)) as store:
        if current != live and store.current() not in (began.store, live):
            return _held(_other_store(store.current(), began))
        if not (same_users and champion is not None and store.publish_same(live, champion)):
            publish(store, registry, live, snapshot)
        if current == live:
            store.activate(live, expect=store.current())
            return _answered(night, store, live) if _unproved(night, live) else Ending(live=True)
        Answering.of(load_bundle(registry.path(live)), store, Scorer).check_golden()
        wrong = check_in_server(night, live) if night.config.publish.check else None
        if wrong is not None:
            return _failed(f"{live} did not go live: {wrong}")
        ending = move(night, store, live, began)
        if ending.live:
            ending = _answered(night, store, live)
        if ending.live:
            _collect(registry, store, live, config.keep)
        return ending


def stays(night: Night, live: str, champion: str | None, began: Pointers) -> Ending | None:
    """Say why what is live stays so; None where a version may take its place."""
    current = night.registry.current()
    if current != began.registry:
        return _held(
            f"{current} is live and {began.registry} was when the night began: somebody moved the pointer, "
            "and that stays; run the night again to compare with what is live now"
        )
    if current not in (None, champion) and str(current)[:10] >= str(night.date):
        return Ending(live=False, reason="it is of no earlier night, and stays")
    barred = night.registry.activations.barred().get(live)
    if barred is not None:
        by = f" by {barred.who}" if barred.who else ""
        return _held(
            f"{live} was rolled back{by}, and no night brings it back; `recsys bundle activate {live}` does"
        )
    return None


def move(night: Night, store: FeatureStore, live: str, began: Pointers) -> Ending:
    """Move both pointers.

    The store's first: of hosts that publish to one, the later stops before its own pointer moves.
    """
    try:
        store.activate(live, expect=began.store)
    except StoreMovedError:
        return _held(_other_store(store.current(), began))
    try:
        night.registry.activate(live, expect=began.registry, why=_why(night))
    except MovedError as error:
        if began.store is not None:
            store.activate(began.store, expect=live)
        return _held(f"{error}: somebody moved the pointer a moment ago, and that stays")
    return Ending(live=True)


def _unproved(night: Night, live: str) -> bool:
    """Say whether this night moved the pointer and was killed before the servers had answered."""
    record = night.registry.record(live)
    moves = [entry for entry in night.registry.activations.read() if entry.version == live]
    if record is None or not moves or moves[-1].why != _why(night):
        return False
    # An activation that failed before, and was tried again, has left a ruling too: older than the move.
    return not any(r.by == "activation" and r.at.timestamp() >= moves[-1].at for r in record.rulings)


def _answered(night: Night, store: FeatureStore, live: str) -> Ending:
    """Wait for the running servers; where one does not take the version, the one before is live again."""
    settings = night.config.publish
    wrong = await_servers(night.registry, live, settings.servers_s, settings.check_s)
    if wrong is None:
        return Ending(live=True)
    before = night.registry.activations.before(live)
    if before is None:
        return Ending(
            live=True,
            reason=f"{wrong}; nothing was live before {live}, so it stays",
            verdict=Verdict.CHECK_FAILED,
        )
    lost = _ready(store, night.registry, before)
    try:
        night.registry.rollback(why=f"night of {night.date}: {wrong}", expect=live)
    except MovedError as error:
        return _held(f"{error}; {wrong}")
    if lost is None and store.current() == live:
        store.activate(before, expect=live)
    wrong += f"; {lost}" if lost is not None else ""
    return _failed(f"{live} was rolled back to {before}: {wrong}")


def _ready(store: FeatureStore, registry: Registry, version: str) -> str | None:
    """Give a version's users back to the store if it has lost them; say why not, None: it has them.

    That stops no rollback: what does harm has to go in any case.
    """
    try:
        ensure_users(store, registry, version)
    except StoreError as error:
        return f"users of {version}: {error}"
    return None


def _why(night: Night) -> str:
    return f"night of {night.date}: {Verdict.PROMOTE}"


def _failed(reason: str) -> Ending:
    return Ending(live=False, reason=reason, verdict=Verdict.CHECK_FAILED)


def _other_store(found: str | None, began: Pointers) -> str:
    return (
        f"the store points at {found}, and at {began.store} when the night began: another host publishes to "
        "it; give each runs folder a [store] namespace of its own, or stop one of them"
    )


def _held(reason: str) -> Ending:
    return Ending(live=False, reason=reason, verdict=Verdict.HOLD)


def _collect(registry: Registry, store: FeatureStore, live: str, count: int) -> None:
    """Keep the newest versions and what servers have loaded; collect the rest of the store's bases."""
    keep = {live, *registry.kept(count)}
    # Events older than the oldest base that may still be read are in every base already.
    store.gc(keep, min(read_manifest(registry.path(v)).snapshot_at_ms for v in keep))
