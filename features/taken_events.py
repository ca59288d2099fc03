"""What one user has taken: as the store packs it, and as a request sees it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenEvents:
    """One user's standing events that took an item, in any order [N]."""

    item_ids: Sequence[str] = ()
    kinds: Sequence[str] = ()
    at_ms: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.item_ids)

    def where(self, kept: Sequence[bool]) -> "TakenEvents":
        """Keep some of the events. Args: kept: [N]."""
        return TakenEvents(
            item_ids=[item for item, keep in zip(self.item_ids, kept, strict=True) if keep],
            kinds=[kind for kind, keep in zip(self.kinds, kept, strict=True) if keep],
            at_ms=self.at_ms[np.array(kept, np.bool_)],
        )


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


def unpacked_taken(
    packed: Packed, fresh: Iterable[tuple[str, str, int]], history: int, until_ms: int
) -> TakenEvents:
    """Give a user's newest events before an instant: those of the base, and fresh ones (item, kind, ms)."""
    events = [
        (at, item, kind) for kind, items in packed.items() for item, times in items.items() for at in times
    ]
    events += [(at, item, kind) for item, kind, at in fresh]
    events = [event for event in events if event[0] < until_ms]
    if len(events) > history:
        events = sorted(events)[len(events) - history :]
    return TakenEvents(
        item_ids=[item for _, item, _ in events],
        kinds=[kind for _, _, kind in events],
        at_ms=np.array([at for at, _, _ in events], np.int64),
    )
