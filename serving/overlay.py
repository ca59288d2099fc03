"""What changed in the catalogue since the bundle was built: new items, new prices, withdrawals.

One Overlay outlives every version that a server loads; each version has a Shelf, which lays it over its
catalogue.
"""

import threading
from collections.abc import Iterable

from serving.catalogue import Catalogue, ItemRow


class Overlay:
    """Items upserted since the bundle was built; shared by all versions that a server loads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: dict[str, tuple[int, ItemRow]] = {}
        self._number = 0

    def put(self, items: Iterable[ItemRow]) -> None:
        """Add rows; a later row of an item replaces the earlier one."""
        with self._lock:
            self._number += 1
            self._items.update({item.item_id: (self._number, item) for item in items})

    def get(self, item_id: str) -> ItemRow | None:
        """Give an item's row."""
        entry = self._items.get(item_id)
        return None if entry is None else entry[1]

    @property
    def number(self) -> int:
        """Count the calls of `put`."""
        return self._number

    def since(self, number: int) -> tuple[int, list[ItemRow]]:
        """Give the current number and the rows put after an earlier one."""
        with self._lock:
            return self._number, [item for at, item in self._items.values() if at > number]


class Shelf:
    """One version's catalogue, kept up to date with the overlay.

    Args: as_of_ms: upserts before this instant are in the catalogue already.
    """

    def __init__(self, base: Catalogue, overlay: Overlay, as_of_ms: int = 0) -> None:
        self._as_of_ms = as_of_ms
        self._overlay = overlay
        self._lock = threading.Lock()
        self._now = (0, base)

    def now(self) -> Catalogue:
        """Give the catalogue with everything upserted so far."""
        if self._now[0] != self._overlay.number:
            with self._lock:
                number, items = self._overlay.since(self._now[0])
                fresh = [item for item in items if item.at_ms >= self._as_of_ms]
                self._now = (number, self._now[1].with_items(fresh))
        return self._now[1]

    def item(self, item_id: str) -> ItemRow | None:
        """Give an item as it is now."""
        late = self._overlay.get(item_id)
        return late if late is not None and late.at_ms >= self._as_of_ms else self.now().bundle_item(item_id)

    def in_bundle(self, item_id: str) -> bool:
        """Tell whether the bundle itself knows an item."""
        catalogue = self.now()
        return catalogue.rows.get(item_id, catalogue.num_in_bundle) < catalogue.num_in_bundle
