"""The online store: an immutable base per version ⊕ a mutable delta of events. STORES: scheme -> class.

Base: one packed value per user, written once by the nightly publish. Delta: feedback as it is received, item
ids as strings; encoded when read, with the bundle's vocabulary. A version is named like its bundle.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recsys.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One piece of feedback in the delta."""

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
    """What serving reads and writes, and what the night publishes."""

    def get_many(self, version: str, user_ids: Sequence[str]) -> list[StoredUser]:
        """Read base and delta of users, in order. Raises: StoreError when the version is not there."""

    def append(self, events: Iterable[Event]) -> int:
        """Add events to the delta; a feedback_id already there is left alone. Give how many were new."""

    def publish(self, version: str, values: Iterable[tuple[str, bytes]], meta: Mapping[str, str]) -> int:
        """Write a version's base, verify it, and count its users. Publishing it again does nothing."""

    def activate(self, version: str, expect: str | None) -> None:
        """Point the store at a version, if it still points at `expect`."""

    def current(self) -> str | None:
        """Give the version the store points at."""

    def gc(self, keep: Iterable[str], delta_before_ms: int) -> list[str]:
        """Remove all other versions and older delta events; give the versions removed."""

    def health(self) -> dict[str, str]:
        """Say how the store is; never raises."""


def open_store(url: str, runs: Path) -> FeatureStore:
    """Open the store that a config names.

    Raises: ConfigError listing the known schemes.
    """
    scheme = url.split(":", 1)[0]
    if scheme not in STORES:
        raise ConfigError(f"[store] url = {url!r}: unknown scheme; known: {', '.join(STORES)}")
    from importlib import import_module

    module, name = STORES[scheme].split(":")
    store: FeatureStore = getattr(import_module(module), name)(runs / "store")
    return store


STORES: dict[str, str] = {"sqlite": "features.store.sqlite:SQLiteStore"}
