"""The catalogue as one request sees it: the bundle's items and the fresh ones. Never changed.

The first `num_in_bundle` rows are the bundle's, in its order, so that catalogue and scorer share row numbers.
Items upserted later follow. Legend: N rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.id_table import MISSING, id_hash
from recsys.mask import Mask, intersection
from serving.catalogue.base import BaseCatalogue
from serving.catalogue.filters import NO_CATEGORY
from serving.catalogue.items import ItemRow
from serving.catalogue.overlay import FreshRows
from serving.request import Filter

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Allowed:
    """The rows that a request may be answered with: a bitmap, less a few rows.

    The few are the user's seen items and the caller's denied ones. A search looks for as many items more,
    and they are taken out of what it found: that costs less than a bitmap of the request's own.
    """

    mask: Mask
    forbidden: Rows
    """Ascending, distinct."""

    def of(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Tell for each row [N] whether it is allowed."""
        passing: npt.NDArray[np.bool_] = self.mask[rows]
        if self.forbidden.size:
            at = np.searchsorted(self.forbidden, rows)
            passing &= self.forbidden[np.minimum(at, self.forbidden.size - 1)] != rows
        return passing

    def without(self, row: int) -> "Allowed":
        """Return the rows without one."""
        return Allowed(self.mask, np.union1d(self.forbidden, [row]).astype(np.int64))

    def search(self, k: int) -> tuple[int, Mask | None]:
        """Return how many items to search for, and among which rows (None: all), so that k allowed are found.

        More forbidden rows than k are taken out of the bitmap: searching for all of them would cost more.
        """
        if self.forbidden.size > k:
            return k, self.mask.without(self.forbidden)
        return k + self.forbidden.size, None if self.mask.count == self.mask.size else self.mask

    def first(self, k: int) -> Rows:
        """List the first k allowed rows, or fewer when there are fewer."""
        rows = self.mask.first(k + self.forbidden.size)
        found: Rows = rows[self.of(rows)][:k]
        return found


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Items by row."""

    base: BaseCatalogue
    fresh: FreshRows

    @classmethod
    def from_frame(cls, items: pl.DataFrame) -> "Catalogue":
        """Read a frame with the canonical columns of items, in the bundle's order; columns may be missing."""
        return cls.of(BaseCatalogue.from_frame(items))

    @classmethod
    def of(cls, base: BaseCatalogue) -> "Catalogue":
        """Return the bundle's catalogue as it is."""
        return cls(base, FreshRows.none(len(base)))

    def __len__(self) -> int:
        return len(self.base) + self.fresh.num_new

    @property
    def num_in_bundle(self) -> int:
        """Count the bundle's items: their rows come first."""
        return len(self.base)

    def row_of(self, item_id: str) -> int:
        """Return an item's row; MISSING when the catalogue does not have it."""
        row = self.base.ids.row_of(item_id)
        return self.fresh.row_of_new(item_id) if row == MISSING else row

    def rows_or_missing(self, item_ids: Iterable[str]) -> Rows:
        """Return the rows [N] of ids, MISSING where the catalogue does not have one."""
        asked = list(item_ids)
        rows = self.base.ids.rows_of(asked)
        if self.fresh.num_new:
            for at in np.flatnonzero(rows == MISSING).tolist():
                rows[at] = self.fresh.row_of_new(asked[at])
        return rows

    def rows_of(self, item_ids: Iterable[str]) -> Rows:
        """Return the rows of the ids that the catalogue has, in their order."""
        rows = self.rows_or_missing(item_ids)
        found: Rows = rows[rows != MISSING]
        return found

    def id_of(self, row: int) -> str:
        """Return an item's id."""
        return self.base.ids[row] if row < len(self.base) else self._fresh(row).item_id

    def ids_of(self, rows: Rows) -> list[str]:
        """List the ids of rows [N]."""
        if not self.fresh.num_new:
            return self.base.ids.ids_of(rows)
        return [self.id_of(row) for row in rows.tolist()]

    def title_of(self, row: int) -> str | None:
        """Return an item's title."""
        item = self.fresh.item(row)
        return self.base.title(row) if item is None else item.title

    def hashes_of(self, rows: Rows) -> npt.NDArray[np.uint64]:
        """Return `id_hash` of the ids of rows [N]."""
        if not self.fresh.num_new:
            return self.base.ids.hashes_of(rows)
        return np.array([id_hash(item_id) for item_id in self.ids_of(rows)], np.uint64)

    def titles_of(self, rows: Rows) -> list[str | None]:
        """List the titles of rows [N]."""
        if not self.fresh.columns.size:
            return self.base.titles(rows)
        return [self.title_of(row) for row in rows.tolist()]

    def category_of(self, row: int) -> str | None:
        """Return the name of an item's category."""
        item = self.fresh.item(row)
        if item is not None:
            return item.category
        code = int(self.base.categories.codes[row])
        return None if code == NO_CATEGORY else self.base.category_names[code]

    def category_codes(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return a number for each row's category [N]; NO_CATEGORY where there is none."""
        codes = np.full(rows.size, NO_CATEGORY, np.int64)
        in_bundle = rows < len(self.base)
        codes[in_bundle] = self.base.categories.codes[rows[in_bundle]]
        return self.fresh.with_codes(rows, codes)

    def item(self, row: int) -> ItemRow:
        """Return an item whole."""
        return self.fresh.item(row) or self.base.item(row)

    def bundle_item(self, item_id: str) -> ItemRow | None:
        """Return an item as in the bundle; None when the bundle does not have it."""
        row = self.base.ids.row_of(item_id)
        return None if row == MISSING else self.base.item(row)

    def allowed(self, conditions: Filter, forbidden: Rows, at_ms: int) -> Allowed:
        """Return the rows that a request may be answered with.

        Args: forbidden: rows that it may not be answered with, in any order; MISSING says nothing.
        """
        return Allowed(self._passing(conditions, at_ms), np.unique(forbidden[forbidden != MISSING]))

    def with_items(self, rows: Rows, items: Sequence[ItemRow]) -> "Catalogue":
        """Return a catalogue in which these items stand at rows: the one's they change, or the next ones."""
        return Catalogue(self.base, self.fresh.with_items(rows, items, self.base.category_codes))

    def next_rows(self, item_ids: Sequence[str]) -> Rows:
        """Return the rows [N] of distinct ids; new items are given the rows after the last."""
        rows = self.rows_or_missing(item_ids)
        new = np.flatnonzero(rows == MISSING)
        rows[new] = len(self) + np.arange(new.size)
        return rows

    def _passing(self, conditions: Filter, at_ms: int) -> Mask:
        categories = self._codes_of(conditions.categories) if conditions.categories else None
        mask = self._with_fresh(
            self._base_passing(conditions, categories, at_ms), conditions, categories, at_ms
        )
        if conditions.allow_item_ids:
            listed = Mask.of_rows(self.rows_of(conditions.allow_item_ids), len(self))
            mask = mask & listed
        return mask

    def _base_passing(self, conditions: Filter, categories: Sequence[int] | None, at_ms: int) -> Mask:
        size = len(self.base)
        available = None if conditions.include_unavailable else self.base.availability.at(at_ms)
        parts = []
        if categories is not None:
            parts.append(
                self.base.categories.bits(c for c in categories if c < len(self.base.category_names))
            )
        if conditions.min_price is not None or conditions.max_price is not None:
            parts.append(self.base.prices.bits(conditions.min_price, conditions.max_price))
        if not parts:
            return available or Mask.full(size)
        if available is not None:
            parts.append(available.bits)
        return Mask.of_bits(intersection(parts), size)

    def _with_fresh(
        self, mask: Mask, conditions: Filter, categories: Sequence[int] | None, at_ms: int
    ) -> Mask:
        if not self.fresh.columns.size:
            return mask
        bits = mask.resized(len(self)).bits if len(self) > mask.size else mask.bits.copy()
        self.fresh.filtered(bits, conditions, categories, at_ms)
        return Mask.of_bits(bits, len(self))

    def _codes_of(self, names: frozenset[str]) -> list[int]:
        known: tuple[Mapping[str, int], ...] = (self.base.category_codes, self.fresh.category_codes)
        return [codes[name] for name in sorted(names) for codes in known if name in codes]

    def _fresh(self, row: int) -> ItemRow:
        item = self.fresh.item(row)
        assert item is not None, row
        return item
