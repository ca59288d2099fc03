"""What changed in the catalogue since the bundle was built: new items, new prices, withdrawals.

One Overlay outlives every version that a server loads; each version has a Shelf, which lays it over its
catalogue and lets its scorer know.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from serving.catalogue import Catalogue, ItemRow
from serving.ports import Model, Scorer


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """All that there is at one instant: the catalogue, and a scorer that knows every row of it."""

    catalogue: Catalogue
    scorer: Scorer | None


class Shelf:
    """One version's stock, kept up to date with the overlay; each upsert is encoded once.

    Upserts before the model's `items_as_of_ms` are in its catalogue already.
    """

    def __init__(self, model: Model, overlay: Overlay) -> None:
        self._model = model
        self._overlay = overlay
        self._lock = threading.Lock()
        self._now = (0, Stock(catalogue=model.catalogue, scorer=model.scorer))

    def now(self) -> Stock:
        """Give what there is, with everything upserted so far."""
        if self._now[0] != self._overlay.number:
            with self._lock:
                number, items = self._overlay.since(self._now[0])
                fresh = [item for item in items if item.at_ms >= self._model.items_as_of_ms]
                self._now = (number, self._with_items(self._now[1], fresh))
        return self._now[1]

    def item(self, item_id: str) -> ItemRow | None:
        """Give an item as it is now."""
        late = self._overlay.get(item_id)
        if late is not None and late.at_ms >= self._model.items_as_of_ms:
            return late
        return self._model.catalogue.bundle_item(item_id)

    def in_bundle(self, item_id: str) -> bool:
        """Tell whether the bundle itself knows an item."""
        return item_id in self._model.catalogue.rows

    def _with_items(self, stock: Stock, items: Sequence[ItemRow]) -> Stock:
        if not items:
            return stock
        catalogue, scorer = stock.catalogue.with_items(items), stock.scorer
        if scorer is not None and self._model.encode_items is not None:
            by_row = {catalogue.rows[item.item_id]: item for item in items}
            rows = np.fromiter(by_row, dtype=np.int64, count=len(by_row))
            scorer = scorer.with_items(rows, self._model.encode_items(by_row))
        return Stock(catalogue=catalogue, scorer=scorer)
