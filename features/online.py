"""The online read: store (base ⊕ delta) -> a user's inputs at one instant, by training's encoder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from features.encode import Encoder, age_buckets
from features.store import Event, FeatureStore, StoredUser
from recsys.config import RunConfig
from recsys.errors import StoreError
from recsys.inputs import ContextInputs, ItemInputs, UserInputs
from recsys.snapshot import DaySnapshot

STORE_UNAVAILABLE = "STORE_UNAVAILABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineUser:
    """One user as a request sees them."""

    inputs: UserInputs
    known: bool
    """Whether the nightly base knows the user."""
    seen: dict[str, frozenset[str]]
    """Feedback kind -> items: all ever for the kinds that are not shown again, else those of the history."""
    history: tuple[Event, ...]
    """Visible events, newest first."""
    degraded: tuple[str, ...] = ()


class OnlineFeatures:
    """Reads users of one bundle version from a store.

    Args: snapshot_at_ms: the instant as of which the version's base stands; older events are in the base.
    """

    def __init__(
        self, store: FeatureStore, version: str, config: RunConfig, encoder: Encoder, snapshot_at_ms: int
    ) -> None:
        self.store, self.version, self.config = store, version, config
        self.encoder, self.snapshot_at_ms = encoder, snapshot_at_ms

    def user(self, user_id: str, at_ms: int) -> OnlineUser:
        """Read a user as of an instant; a dead store gives an unknown user and says so."""
        try:
            stored = self.store.get_many(self.version, [user_id])[0]
        except StoreError:
            return self.assemble(StoredUser(None, ()), user_id, at_ms, (STORE_UNAVAILABLE,))
        return self.assemble(stored, user_id, at_ms)

    def assemble(
        self, stored: StoredUser, user_id: str, at_ms: int, degraded: tuple[str, ...] = ()
    ) -> OnlineUser:
        """Merge base and delta as a training row of this instant would see them, and encode."""
        row, tail = unpack_user(stored.base) if stored.base is not None else ({}, ())
        visible_until = at_ms - 1000 * self.config.features.ingestion_lag
        live = [e for e in stored.events if e.received_at_ms >= self.snapshot_at_ms]
        history = self._newest(tail, live, visible_until)
        encoded = self.encoder.encode_one("user", {**row, "user_id": user_id} if row else {})
        items, kinds, ages = self._encode_history(history, at_ms)
        seen = {k: set(ids) for k, ids in unpack_seen(stored.base).items()}
        # What must not be shown again counts at once, however long ago or just now it was done.
        for event in (*history, *stored.events):
            seen.setdefault(event.kind, set()).add(event.item_id)
        return OnlineUser(
            inputs=UserInputs(
                ids=encoded.ids[0],
                numbers=encoded.numbers[0],
                history_items=items,
                history_kinds=kinds,
                history_ages=ages,
            ),
            known=bool(row),
            seen={kind: frozenset(ids) for kind, ids in seen.items()},
            history=tuple(history),
            degraded=degraded,
        )

    def context(self, values: Mapping[str, str | float], at_ms: int) -> ContextInputs:
        """Encode a request's context; names without the `context_` prefix."""
        clock = self.encoder.clock_of(datetime.fromtimestamp(at_ms / 1000, UTC))
        encoded = self.encoder.encode_one(
            "context", {**{f"context_{k}": v for k, v in values.items()}, **clock}
        )
        return ContextInputs(ids=encoded.ids[0], numbers=encoded.numbers[0])

    def _newest(self, tail: Sequence[Event], live: Sequence[Event], visible_until: int) -> list[Event]:
        kinds = set(self.config.features.history_kinds)
        events = [e for e in (*tail, *live) if e.kind in kinds and e.received_at_ms < visible_until]
        events.sort(key=lambda e: (e.received_at_ms, e.feedback_id), reverse=True)
        return events[: self.config.features.history_length]

    def _encode_history(
        self, history: Sequence[Event], at_ms: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        length = self.config.features.history_length
        items, kinds, ages = (np.zeros(length, np.int64) for _ in range(3))
        if history:
            n = len(history)
            items[:n], kinds[:n] = self.encoder.events_of(
                [e.item_id for e in history], [e.kind for e in history], [e.value for e in history]
            )
            used = kinds[:n] > 0
            at = np.array([e.received_at_ms for e in history], np.int64)
            items[:n] = np.where(used, items[:n], 0)
            ages[:n] = np.where(used, age_buckets(at_ms - at), 0)
        return items, kinds, ages


def encode_items(encoder: Encoder, items: pl.DataFrame) -> ItemInputs:
    """Encode a bundle's catalogue for its scorer."""
    encoded = encoder.encode("item", items)
    return ItemInputs(ids=encoded.ids, numbers=encoded.numbers, text=encoded.text)


def pack_users(snapshot: DaySnapshot, encoder: Encoder) -> Iterator[tuple[str, bytes]]:
    """Pack every user's nightly values and history tail: one value per user, in user order."""
    users = snapshot.table("users")
    columns = [f.column for f in encoder.features.categorical_of("user") if f.column != "user_id"]
    columns += [c for c in encoder.number_columns("user") if c not in columns]
    present = [c for c in columns if c in users.columns]
    tails = _tails(snapshot.table("tail"))
    seen = _seen(snapshot.table("seen"))
    for row in users.select("user_id", *present).iter_rows(named=True):
        user_id = row.pop("user_id")
        yield user_id, _pack(row, tails.pop(user_id, []), seen.pop(user_id, {}))
    for user_id in sorted({*tails, *seen}):
        yield user_id, _pack({}, tails.get(user_id, []), seen.get(user_id, {}))


def unpack_user(value: bytes) -> tuple[dict[str, object], tuple[Event, ...]]:
    """Read what `pack_users` wrote."""
    row, tail, *_ = json.loads(value)
    events = tuple(
        Event(feedback_id=f, user_id="", item_id=i, kind=k, value=v, received_at_ms=t)
        for t, f, i, k, v in tail
    )
    return row, events


def unpack_seen(value: bytes | None) -> dict[str, list[str]]:
    """Read what a user has ever done of the kinds that are not shown again: kind -> item ids."""
    seen: dict[str, list[str]] = {}
    for kinds in json.loads(value)[2:] if value is not None else ():
        seen |= kinds
    return seen


def _pack(
    row: Mapping[str, object], tail: Sequence[Sequence[object]], seen: Mapping[str, Sequence[str]]
) -> bytes:
    values = {k: v for k, v in row.items() if v is not None}
    return json.dumps([values, tail, seen], separators=(",", ":"), default=str).encode()


def _seen(rows: pl.DataFrame) -> dict[str, dict[str, list[str]]]:
    grouped: dict[str, dict[str, list[str]]] = {}
    for user, kind, item in rows.select("user_id", "kind", "item_id").iter_rows():
        grouped.setdefault(user, {}).setdefault(kind, []).append(item)
    return grouped


def _tails(tail: pl.DataFrame) -> dict[str, list[list[object]]]:
    grouped: dict[str, list[list[object]]] = {}
    rows = tail.with_columns(pl.col("received_at").dt.epoch("ms"))
    for user, *event in rows.select(
        "user_id", "received_at", "feedback_id", "item_id", "kind", "value"
    ).iter_rows():
        grouped.setdefault(user, []).append(event)
    return grouped
