"""What one user has taken: as the store packs it, and as a request sees it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from features.store import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenEvents:
    """One user's standing events that took an item, in any order [N]."""

    item_ids: Sequence[str] = ()
    kinds: Sequence[str] = ()
    at_ms: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.item_ids)


Packed = Mapping[str, Mapping[str, Sequence[int]]]
"""Kind -> item id -> when it was taken, ms: the table's rows of one user, as the store packs them."""


def packed_taken(rows: pl.DataFrame) -> dict[str, dict[str, dict[str, list[int]]]]:
    """Group the table's rows by user, as `Packed`."""
    grouped: dict[str, dict[str, dict[str, list[int]]]] = {}
    at = rows["received_at"].dt.epoch("ms")
    columns = (rows["user_id"], rows["kind"], rows["item_id"], at)
    for user, kind, item, at_ms in zip(*(column.to_list() for column in columns), strict=True):
        grouped.setdefault(user, {}).setdefault(kind, {}).setdefault(item, []).append(at_ms)
    return grouped


def taken_of(events: Iterable[Event]) -> Packed:
    """Group one user's events of any kind as `Packed`."""
    grouped: dict[str, dict[str, list[int]]] = {}
    for event in events:
        grouped.setdefault(event.kind, {}).setdefault(event.item_id, []).append(event.received_at_ms)
    return grouped


def unpacked_taken(
    packed: Packed,
    fresh: Iterable[tuple[str, str, int]],
    history: int,
    until_ms: int,
    stands: Callable[[str, str, int], bool] | None = None,
) -> TakenEvents:
    """Give a user's newest standing events before an instant: those of the base, and fresh ones.

    Args: fresh: (item, kind, ms); stands: tells whether such an event was not taken back; None: none was.
    """
    events = [
        (at, item, kind) for kind, items in packed.items() for item, times in items.items() for at in times
    ]
    events += [(at, item, kind) for item, kind, at in fresh]
    events = [event for event in events if event[0] < until_ms]
    if stands is not None:
        events = [(at, item, kind) for at, item, kind in events if stands(item, kind, at)]
    if len(events) > history:
        events = sorted(events)[len(events) - history :]
    return TakenEvents(
        item_ids=[item for _, item, _ in events],
        kinds=[kind for _, _, kind in events],
        at_ms=np.array([at for at, _, _ in events], np.int64),
    )
