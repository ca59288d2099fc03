"""The online read: store (base ⊕ delta) -> a user's inputs at one instant, by training's encoder."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter

import numpy as np
import polars as pl

from features.definitions import reversals
from features.encode import Encoder
from features.kinds.rows import id_column
from features.live import live_values
from features.packing import PackedUser, unpack_user
from features.sequences import age_buckets, minutes_of
from features.store import Event, FeatureStore, StoredUser
from features.taken_events import TakenEvents, unpacked_taken
from recsys.config import RunConfig
from recsys.errors import StoreError
from recsys.inputs import ContextInputs, CrossInputs, ItemInputs, UserInputs

MOST_CONTEXTS = 1_024
"""So many different contexts stay encoded."""
STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
_BY_TIME = attrgetter("received_at_ms", "feedback_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineUser:
    """One user as a request sees them."""

    inputs: UserInputs
    known: bool
    """Whether the nightly base knows the user."""
    seen: dict[str, frozenset[str]]
    """Feedback kind -> items: all ever for the kinds that are not shown again, else those of the history."""
    history: tuple[Event, ...]
    """Visible events that stand, newest first."""
    taken: TakenEvents = field(default_factory=TakenEvents)
    """Visible events that stand and took an item, longer ago than those of the history."""
    live: Mapping[str, int | None] = field(default_factory=dict)
    """Counters since the snapshot, as raw columns of the request's context."""
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
        self._undone_by = reversals(config.tasks)
        self._undoing = frozenset(self._undone_by.values())
        self._taken_kinds = frozenset(config.taken_kinds)
        # Of an hour's requests most have the same context: users who did nothing since the snapshot.
        self._encoded_context = lru_cache(MOST_CONTEXTS)(self._encode_context)

    def user(self, user_id: str, at_ms: int, within_s: float | None = None) -> OnlineUser:
        """Read a user as of an instant; a store that is dead, or too slow, gives an unknown user and says so.

        Args: within_s: how long the store may take; default: as the config says.
        """
        try:
            stored = self.store.get_many(self.version, [user_id], within_s)[0]
        except StoreError:
            return self.assemble(StoredUser(None, ()), user_id, at_ms, (STORE_UNAVAILABLE,))
        return self.assemble(stored, user_id, at_ms)

    def assemble(
        self, stored: StoredUser, user_id: str, at_ms: int, degraded: tuple[str, ...] = ()
    ) -> OnlineUser:
        """Merge base and delta as a training row of this instant would see them, and encode."""
        base = unpack_user(stored.base)
        visible_until = at_ms - 1000 * self.config.features.ingestion_lag
        live = self._live(base, stored.events)
        visible = [e for e in live if e.received_at_ms < visible_until]
        history, stands = self._newest(base, visible, visible_until)
        encoded = self.encoder.encode_one("user", {**base.row, "user_id": user_id} if base.row else {})
        items, kinds, ages, minutes = self._encode_history(history, stands, at_ms)
        standing = tuple(e for e, stood in zip(history, stands, strict=True) if stood)
        return OnlineUser(
            inputs=UserInputs(
                ids=encoded.ids[0],
                numbers=encoded.numbers[0],
                history_items=items,
                history_kinds=kinds,
                history_ages=ages,
                history_minutes=minutes,
                bags=tuple(bag.values for bag in encoded.bags),
                crosses=self._crosses(base),
            ),
            known=bool(base.row),
            seen=_seen(base, (*standing, *stored.events)),
            history=standing,
            taken=self._taken(base, visible, visible_until),
            live=live_values(visible, self.config.tasks, at_ms) if self.config.features.live_counters else {},
            degraded=degraded,
        )

    def context(
        self, values: Mapping[str, str | float], at_ms: int, live: Mapping[str, int | None] | None = None
    ) -> ContextInputs:
        """Encode a request's context; names without the `context_` prefix.

        Args: live: the user's counters since the snapshot; without them nothing was done since.
        """
        clock = self.encoder.clock_of(datetime.fromtimestamp(at_ms / 1000, UTC))
        if live is None and self.config.features.live_counters:
            live = live_values((), self.config.tasks, at_ms)
        row = {**{f"context_{k}": v for k, v in values.items()}, **clock, **(live or {})}
        return self._encoded_context(tuple(row.items()))

    def _encode_context(self, row: tuple[tuple[str, object], ...]) -> ContextInputs:
        encoded = self.encoder.encode_one("context", dict(row))
        for array in (encoded.ids, encoded.numbers):
            array.flags.writeable = False  # several requests get it
        return ContextInputs(ids=encoded.ids[0], numbers=encoded.numbers[0])

    def _live(self, base: PackedUser, events: Sequence[Event]) -> list[Event]:
        """Give the events since the snapshot that the base lacks, oldest first, up to the daily cap."""
        if not events:
            return []
        known = {e.feedback_id for e in base.tail}
        fresh = [e for e in events if e.received_at_ms >= self.snapshot_at_ms and e.feedback_id not in known]
        fresh.sort(key=_BY_TIME)
        return fresh[: self.config.features.daily_cap]

    def _newest(
        self, base: PackedUser, live: Sequence[Event], visible_until: int
    ) -> tuple[list[Event], list[bool]]:
        """Give the last visible events, newest first, and whether each still stands."""
        kinds = set(self.config.features.history_kinds)
        tail = [e for e in base.tail if e.received_at_ms < visible_until]
        events = [e for e in (*tail, *live) if e.kind in kinds]
        events.sort(key=_BY_TIME, reverse=True)
        events = events[: self.config.features.history_length]
        if not base.void_at and not self._some_undone(live):
            return events, [True] * len(events)
        undone_at = self._undone_at(live)

        def stands(event: Event) -> bool:
            if base.void_at.get(event.feedback_id, visible_until) < visible_until:
                return False
            return undone_at(event.kind, event.item_id) < event.received_at_ms

        return events, [stands(e) for e in events]

    def _undone_at(self, live: Sequence[Event]) -> Callable[[str, str], int]:
        """Give (kind, item) -> when such an event was last taken back since the snapshot, or -1."""
        latest: dict[tuple[str, str], int] = {}
        for e in live:
            latest[e.kind, e.item_id] = max(e.received_at_ms, latest.get((e.kind, e.item_id), -1))
        return lambda kind, item: latest.get((self._undone_by.get(kind, ""), item), -1)

    def _taken(self, base: PackedUser, live: Sequence[Event], visible_until: int) -> TakenEvents:
        """Give the newest visible events that took an item and stand."""
        fresh = [(e.item_id, e.kind, e.received_at_ms) for e in live if e.kind in self._taken_kinds]
        undone_at = self._undone_at(live)

        def stands(item: str, kind: str, at_ms: int) -> bool:
            return undone_at(kind, item) < at_ms

        said = stands if self._some_undone(live) else None
        return unpacked_taken(base.taken, fresh, self.config.item_item.history, visible_until, said)

    def _some_undone(self, live: Iterable[Event]) -> bool:
        """Tell whether any of the events takes others back."""
        return any(e.kind in self._undoing for e in live)

    def _encode_history(
        self, history: Sequence[Event], stands: Sequence[bool], at_ms: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if not history:
            none = np.zeros(0, np.int64)
            return none, none, none, none
        items, kinds = self.encoder.events_of(
            [e.item_id for e in history], [e.kind for e in history], [e.value for e in history]
        )
        used = np.array(stands, np.bool_) & (kinds > 0)
        at = np.array([e.received_at_ms for e in history], np.int64)
        return items[used], kinds[used], age_buckets(at_ms - at[used]), minutes_of(at[used])

    def _crosses(self, base: PackedUser) -> tuple[CrossInputs, ...]:
        found = []
        for cross in self.encoder.features.crosses:
            rows = base.crosses.get(cross.group, ())
            numbers = self.encoder.encode_cross_rows(cross, rows)
            found.append(CrossInputs(tuple(str(row[0]) for row in rows), numbers))
        return tuple(found)


def encode_items(encoder: Encoder, items: pl.DataFrame) -> ItemInputs:
    """Encode a bundle's catalogue for its scorer."""
    encoded = encoder.encode("item", items)
    return ItemInputs(
        ids=encoded.ids,
        numbers=encoded.numbers,
        text=encoded.text,
        bags=encoded.bags,
        groups=tuple(item_group(items, cross.group).to_list() for cross in encoder.features.crosses),
    )


def item_group(items: pl.DataFrame, group: str) -> pl.Series:
    """Give the item column that users' aggregates are kept by, as text."""
    return id_column(items, group).cast(pl.String)


def _seen(base: PackedUser, events: Iterable[Event]) -> dict[str, frozenset[str]]:
    """What must not be shown again counts at once, however long ago or just now it was done."""
    seen = {kind: set(ids) for kind, ids in base.seen.items()}
    for event in events:
        seen.setdefault(event.kind, set()).add(event.item_id)
    return {kind: frozenset(ids) for kind, ids in seen.items()}
