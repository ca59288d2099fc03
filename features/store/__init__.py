"""The online store: an immutable base per version ⊕ a mutable delta of events. STORES: scheme -> class.

Base: one packed value per user, written once by the nightly publish. Delta: feedback as it is received, item
ids as strings; encoded when read, with the bundle's vocabulary. A version is named like its bundle. A read
at a version gives that version's base, complete, or fails. It never mixes two versions, and a base that is
being removed never reads as "unknown user".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from recsys.config import StoreConfig
from recsys.errors import ConfigError
from recsys.resolve import resolve


class Event(NamedTuple):
    """One piece of feedback in the delta.

    A tuple: a request makes one of each event of a history, and a tuple is made in a fifth of the time.
    """

    feedback_id: str
    user_id: str
    item_id: str
    kind: str
    value: float | None
    received_at_ms: int


@dataclass(frozen=True, slots=True)
class StoredUser:
    """What the store holds of one user: the packed base (None = unknown) and the delta, oldest first."""

    base: bytes | None
    events: tuple[Event, ...]


class FeatureStore(Protocol):
    """What serving reads and writes, and what the night publishes; safe to use from many threads."""

    def get_many(
        self, version: str, user_ids: Sequence[str], within_s: float | None = None
    ) -> list[StoredUser]:
        """Read base and delta of users, in order; with none, only look for the version.

        Args: within_s: how long the caller can wait; default, and at most: as the config says.
        Raises: MissingUsersError when the version is not there; another StoreError when that cannot be told,
        or nothing was read in time.
        """

    def append(self, events: Iterable[Event], within_s: float | None = None) -> int:
        """Add events to the delta, a feedback_id of a user once. Give how many were new.

        Args: within_s: wait at most so long for other writers; default: as the config says.
        Raises: StoreError.
        """

    def publish(
        self, version: str, values: Iterable[tuple[str, bytes]], meta: Mapping[str, str], expected: int
    ) -> int:
        """Write a version's base, verify it, and count its users. Publishing it again does nothing.

        Args: expected: about how many users will come, for the estimate of memory.
        Raises: StoreError; nothing of the version can be read then.
        """

    def publish_same(self, version: str, other: str) -> bool:
        """Give a version the base of another one, as their users are the same; no user is written.

        Publishing it again does nothing. Gives False when the other version is not there.
        """

    def activate(self, version: str, expect: str | None) -> None:
        """Point the store at a version, if it points at `expect` or there already (compare and set)."""

    def current(self) -> str | None:
        """Give the version the store points at."""

    def gc(self, keep: Iterable[str], delta_before_ms: int) -> list[str]:
        """Remove all other versions but the current one, leftovers of killed publishers, and older delta
        events.

        Give the versions removed.
        """

    def health(self) -> dict[str, str]:
        """Say how the store is; never raises."""

    def close(self) -> None:
        """Close the connections; the store cannot be used afterwards."""


def open_store(config: StoreConfig, runs: Path) -> FeatureStore:
    """Open the store that a config names; a server that is down is no error here.

    Raises: ConfigError listing the known schemes.
    """
    scheme = config.url.split(":", 1)[0]
    if scheme not in STORES:
        raise ConfigError(f"[store] url = {config.url!r}: unknown scheme; known: {', '.join(STORES)}")
    store: FeatureStore = resolve(STORES[scheme]).from_config(config, runs / "store")
    return store


_REDIS = "features.store.redis:RedisStore"
STORES: dict[str, str] = {
    "sqlite": "features.store.sqlite:SQLiteStore",
    "redis": _REDIS,
    "rediss": _REDIS,
    "redis+cluster": _REDIS,
    "rediss+cluster": _REDIS,
}
