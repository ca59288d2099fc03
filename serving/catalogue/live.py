"""One version's catalogue and scorer as of now. An upserted item is encoded before it is visible."""

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import structlog

from recsys.errors import BundleError
from serving.catalogue.items import ItemPatch, ItemRow, patched
from serving.catalogue.overlay import ItemOverlay
from serving.catalogue.view import Catalogue
from serving.protocols import Scorer
from serving.served_model import ServedModel

_log = structlog.get_logger(__name__)
_REASON_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueWithScorer:
    """The catalogue at one instant, and a scorer that can score every row of it."""

    catalogue: Catalogue
    scorer: Scorer | None
    """None: there is no bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What `LiveCatalogue.publish` shows; nobody sees it before."""

    following: CatalogueWithScorer
    rejected: Mapping[str, str] = field(default_factory=dict)
    """Items that cannot be encoded -> why."""


class LiveCatalogue:
    """One version's catalogue and scorer with the overlay in them.

    Writers hold the overlay's lock; requests read `current` and wait for nothing. Upserts before the model's
    `items_as_of_ms` are in its own catalogue already and are skipped. A version that is kept, not live,
    follows later: it notes what has changed, and `catch_up` takes that in without holding writers up. Changes
    that cannot be taken in, for want of memory perhaps, stay noted, in the live version too.
    """

    def __init__(self, model: ServedModel, overlay: ItemOverlay) -> None:
        self._model = model
        self._overlay = overlay
        self._current = CatalogueWithScorer(catalogue=model.catalogue, scorer=model.scorer)
        self._later = False
        self._noted: deque[Sequence[str]] = deque()
        self._catching_up = threading.Lock()
        overlay.follow(self)

    def current(self) -> CatalogueWithScorer:
        """Return catalogue and scorer with everything upserted so far."""
        return self._current

    def item(self, item_id: str) -> ItemRow | None:
        """Return an item's row as of now; None when neither overlay nor bundle has it."""
        catalogue = self._current.catalogue
        row = catalogue.row_of(item_id)
        return None if row < 0 else catalogue.item(row)

    def in_bundle(self, item_id: str) -> bool:
        """Tell whether the bundle itself has an item."""
        return self._model.catalogue.base.ids.row_of(item_id) >= 0

    def prepare(self, items: Sequence[ItemRow]) -> Prepared:
        """Encode distinct items, and reject those for which that fails."""
        if not items:
            return Prepared(following=self._current)
        try:
            return Prepared(following=self._with_items(items))
        except Exception:  # whatever a library makes of an item's content, the other items are shown
            rejected = self._not_encodable(items)
            good = [item for item in items if item.item_id not in rejected]
            if len(good) == len(items):
                raise
        following = self._with_items(good) if good else self._current
        return Prepared(following=following, rejected=rejected)

    def warm(self) -> None:
        """Encode an item of the bundle and show it to nobody: the first upsert would wait for imports.

        They take 1.5 s and more, in which requests wait, too. An item that cannot be encoded is no fault.
        """
        catalogue = self._current.catalogue
        if len(catalogue):
            self._not_encodable([catalogue.item(0)])

    def publish(self, prepared: Prepared) -> None:
        """Show prepared items to the next request."""
        self._current = prepared.following

    def refresh(self, item_ids: Sequence[str]) -> None:
        """Take in items whose patches have changed.

        One that cannot be encoded is left out. If the bundle has it, it stays as it is there, but is
        available when the patches say: a withdrawn item is never shown.
        """
        items = [self._patched(item_id, found) for item_id in item_ids if (found := self._since(item_id))]
        prepared = self.prepare(items)
        self.publish(prepared)
        for item_id, reason in prepared.rejected.items():
            _log.error("item_not_encoded", item_id=item_id, version=self._model.version, error=reason)
        kept = [self._as_in_bundle(item) for item in items if item.item_id in prepared.rejected]
        if any(kept):
            self.publish(self.prepare([item for item in kept if item is not None]))

    def changed(self, item_ids: Sequence[str]) -> None:
        """Take in items whose patches have changed, or note them; the caller holds writers up."""
        self._noted.append(item_ids)
        if not self._later:
            try:
                self._take_in_noted()
            except BundleError as error:
                _log.error("items_not_taken_in", version=self._model.version, error=str(error))

    def follow_later(self) -> None:
        """From now on note what has changed; the caller holds writers up."""
        self._later = True

    def catch_up(self) -> None:
        """Take in what was noted.

        Raises: BundleError when that fails as a whole; it stays noted.
        """
        if not self._noted:
            return
        with self._catching_up:
            if self._later:
                self._take_in_noted()
                return
        with self._overlay.writing(), self._catching_up:  # the order of `going_live`
            self._take_in_noted()

    @contextmanager
    def going_live(self) -> Iterator[None]:
        """Hold writers up with everything taken in; from then on changes are taken in at once.

        Raises: BundleError, before the block, when not everything can be taken in.
        """
        self.catch_up()  # most of it, while upserts go on
        with self._overlay.writing(), self._catching_up:
            self._take_in_noted()
            self._later = False
            yield

    def _take_in_noted(self) -> None:
        changed: dict[str, None] = {}
        while self._noted:
            changed.update(dict.fromkeys(self._noted.popleft()))
        if not changed:
            return
        try:
            self.refresh(list(changed))
        except Exception as error:  # of a library, or for want of memory: it may pass
            self._noted.appendleft(list(changed))
            raise BundleError(
                f"{self._model.version} cannot take in {len(changed)} upserted items "
                f"({type(error).__name__}: {error}); they are tried again"
            ) from error

    def _since(self, item_id: str) -> tuple[ItemPatch, ...]:
        return self._overlay.patches(item_id, self._model.items_as_of_ms)

    def _patched(self, item_id: str, patches: Sequence[ItemPatch]) -> ItemRow:
        return patched(self._model.catalogue.bundle_item(item_id) or ItemRow(item_id=item_id), patches)

    def _as_in_bundle(self, item: ItemRow) -> ItemRow | None:
        """Return the bundle's row with an item's window; None when the bundle does not have it."""
        row = self._model.catalogue.bundle_item(item.item_id)
        if row is None:
            return None
        return replace(
            row, available_from_ms=item.available_from_ms, available_until_ms=item.available_until_ms
        )

    def _with_items(self, items: Sequence[ItemRow]) -> CatalogueWithScorer:
        catalogue, scorer = self._current.catalogue, self._current.scorer
        catalogue.fresh.drop_unshown()
        rows = catalogue.next_rows([item.item_id for item in items])
        if scorer is not None and self._model.encode_items is not None:
            by_row = dict(zip(rows.tolist(), items, strict=True))
            scorer = scorer.with_items(rows, self._model.encode_items(by_row))
        return CatalogueWithScorer(catalogue=catalogue.with_items(rows, items), scorer=scorer)

    def _not_encodable(self, items: Sequence[ItemRow]) -> dict[str, str]:
        """Find the items that fail, halving: item_id -> why."""
        try:
            self._with_items(items)
            return {}
        except Exception as error:
            if len(items) == 1:
                return {items[0].item_id: f"{type(error).__name__}: {error}"[:_REASON_LENGTH]}
        middle = len(items) // 2
        return self._not_encodable(items[:middle]) | self._not_encodable(items[middle:])
