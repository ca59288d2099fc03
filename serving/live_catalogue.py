"""The catalogue of the loaded bundle, kept up to date with the items upserted since the bundle was built.

ItemOverlay            all upserted items; one per server, shared by every version it loads
LiveCatalogue          one version's catalogue with the overlay applied; one per engine
CatalogueWithScorer    what LiveCatalogue gives a request: catalogue and scorer of one instant
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from serving.catalogue import Catalogue, ItemRow
from serving.protocols import Scorer
from serving.served_model import ServedModel


class ItemOverlay:
    """Items upserted since the bundle was built; shared by all versions that a server loads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: dict[str, tuple[int, ItemRow]] = {}
        self._revision = 0

    def put(self, items: Iterable[ItemRow]) -> None:
        """Add rows; a later row of an item replaces the earlier one."""
        with self._lock:
            self._revision += 1
            self._items.update({item.item_id: (self._revision, item) for item in items})

    def get(self, item_id: str) -> ItemRow | None:
        """Return an item's row; None when it was never upserted."""
        entry = self._items.get(item_id)
        return None if entry is None else entry[1]

    @property
    def revision(self) -> int:
        """Count the calls of `put`."""
        return self._revision

    def since(self, revision: int) -> tuple[int, list[ItemRow]]:
        """Return the current revision and the rows put after an earlier one."""
        with self._lock:
            return self._revision, [item for at, item in self._items.values() if at > revision]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueWithScorer:
    """The catalogue at one instant, and a scorer that can score every row of it."""

    catalogue: Catalogue
    scorer: Scorer | None
    """None: there is no bundle."""


class LiveCatalogue:
    """One version's catalogue and scorer with the overlay applied; each upsert is encoded once.

    Upserts before the model's `items_as_of_ms` are in its own catalogue already and are skipped.
    """

    def __init__(self, model: ServedModel, overlay: ItemOverlay) -> None:
        self._model = model
        self._overlay = overlay
        self._lock = threading.Lock()
        self._current = (0, CatalogueWithScorer(catalogue=model.catalogue, scorer=model.scorer))

    def current(self) -> CatalogueWithScorer:
        """Return catalogue and scorer with everything upserted so far."""
        if self._current[0] != self._overlay.revision:
            with self._lock:
                revision, items = self._overlay.since(self._current[0])
                fresh = [item for item in items if item.at_ms >= self._model.items_as_of_ms]
                self._current = (revision, self._with_items(self._current[1], fresh))
        return self._current[1]

    def item(self, item_id: str) -> ItemRow | None:
        """Return an item's row as of now; None when neither overlay nor bundle has it."""
        upserted = self._overlay.get(item_id)
        if upserted is not None and upserted.at_ms >= self._model.items_as_of_ms:
            return upserted
        return self._model.catalogue.bundle_item(item_id)

    def in_bundle(self, item_id: str) -> bool:
        """Tell whether the bundle itself has an item."""
        return item_id in self._model.catalogue.rows

    def _with_items(self, before: CatalogueWithScorer, items: Sequence[ItemRow]) -> CatalogueWithScorer:
        if not items:
            return before
        catalogue, scorer = before.catalogue.with_items(items), before.scorer
        if scorer is not None and self._model.encode_items is not None:
            by_row = {catalogue.rows[item.item_id]: item for item in items}
            rows = np.fromiter(by_row, dtype=np.int64, count=len(by_row))
            scorer = scorer.with_items(rows, self._model.encode_items(by_row))
        return CatalogueWithScorer(catalogue=catalogue, scorer=scorer)
