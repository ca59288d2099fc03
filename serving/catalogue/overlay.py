"""Items upserted since the bundle was built.

ItemOverlay   what was sent, as patches; one per server, shared by every version that it loads
FreshRows     the items that they make of one version's catalogue, as arrays beside the bundle's

Legend: F fresh items.
"""

import contextlib
import functools
import itertools
import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from recsys.mask import Bits, clear_bits, set_bits
from serving.catalogue.filters import NO_CATEGORY, NO_END, NO_START
from serving.catalogue.items import ItemPatch, ItemRow, with_patch
from serving.request import Filter

_COLUMNS = np.dtype(
    [("row", "i8"), ("slot", "i8"), ("category", "i4"), ("price", "f8"), ("start", "i8"), ("end", "i8")]
)


class Follower(Protocol):
    """A version's catalogue that is kept up to date with the overlay."""

    def refresh(self, item_ids: Sequence[str]) -> None:
        """Take in items whose patches have changed."""

    def changed(self, item_ids: Sequence[str]) -> None:
        """Learn that patches of items have changed: take them in, now or soon."""


class ItemOverlay:
    """Patches of items, oldest first; shared by all versions that a server loads."""

    def __init__(self) -> None:
        self._writing = threading.RLock()
        self._patches: dict[str, tuple[ItemPatch, ...]] = {}
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other writers out. Requests only read, and never wait for this."""
        with self._writing:
            yield

    def put(self, patches: Iterable[ItemPatch], but: Follower | None = None) -> None:
        """Add patches and tell the followers, except the one that has them already.

        Patches of other servers may come late: each takes the place of its instant.
        """
        with self._writing:
            changed = _add(self._patches, patches)
            for follower in self._followers:
                if follower is not but:
                    follower.changed(list(changed))

    def renew(self, read: Callable[[], Iterable[ItemPatch]]) -> None:
        """Have all patches read again, from further back, for the next follower; upserts wait meanwhile."""
        with self._writing:
            patches: dict[str, tuple[ItemPatch, ...]] = {}
            _add(patches, read())
            self._patches = patches

    def compact(self, ends_ms: Sequence[int], before_ms: int) -> None:
        """Make one patch of an item's patches before an instant, between the ends of two versions' data.

        Those before the first end are dropped. They are looked for while upserts go on; an item that is
        upserted then keeps its patches until next time.

        Args: ends_ms: ascending, not empty; of all versions that follow.
        """
        with self._writing:
            present = dict(self._patches)
        fewer = {
            item_id: kept
            for item_id, patches in present.items()
            if patches[0].at_ms < before_ms
            and len(kept := _compacted(patches, ends_ms, before_ms)) < len(patches)
        }
        with self._writing:
            for item_id, patches in fewer.items():
                if self._patches.get(item_id) is not present[item_id]:
                    continue
                if patches:
                    self._patches[item_id] = patches
                else:
                    del self._patches[item_id]

    def patches(self, item_id: str, since_ms: int) -> tuple[ItemPatch, ...]:
        """Return an item's patches from an instant on."""
        return tuple(patch for patch in self._patches.get(item_id, ()) if patch.at_ms >= since_ms)

    def newest_ms(self, item_id: str) -> int:
        """Return the instant of an item's last patch; 0 when there is none."""
        known = self._patches.get(item_id, ())
        return known[-1].at_ms if known else 0

    def follow(self, follower: Follower) -> None:
        """Bring a follower up to date, and keep it so.

        Most of it is done while upserts go on; only what came meanwhile keeps them waiting.
        """
        known: dict[str, tuple[ItemPatch, ...]] = {}
        for _ in range(2):
            with self._writing:
                present = dict(self._patches)
            follower.refresh([item_id for item_id, p in present.items() if known.get(item_id) is not p])
            known = present
        with self._writing:
            follower.refresh([item_id for item_id, p in self._patches.items() if known.get(item_id) is not p])
            self._followers.add(follower)


def _add(by_item: dict[str, tuple[ItemPatch, ...]], patches: Iterable[ItemPatch]) -> dict[str, None]:
    """Add patches to those there are; return the items, each once."""
    changed: dict[str, None] = {}
    for patch in patches:
        by_item[patch.item_id] = with_patch(by_item.get(patch.item_id, ()), patch)
        changed[patch.item_id] = None
    return changed


def _compacted(patches: Sequence[ItemPatch], ends_ms: Sequence[int], before_ms: int) -> tuple[ItemPatch, ...]:
    old = [patch for patch in patches if patch.at_ms < before_ms]
    between = itertools.groupby(old, key=lambda patch: bisect_right(ends_ms, patch.at_ms))
    kept = [functools.reduce(ItemPatch.followed_by, group) for passed, group in between if passed]
    return (*kept, *patches[len(old) :])


@dataclass(frozen=True, slots=True)
class FreshRows:
    """Fresh items by catalogue row; a new version of it is made for each upsert, older ones stay as they are.

    Lists and maps are shared with older versions and only ever appended to.
    """

    num_in_bundle: int
    num_new: int
    """Items that the bundle does not have: rows from `num_in_bundle` on."""
    columns: np.ndarray
    """[F] of _COLUMNS, rows ascending."""
    slots: list[ItemRow]
    """Items by `slot`; of an item that was changed again the earlier ones are unused."""
    new_rows: dict[str, int]
    """item_id -> row of items that the bundle does not have."""
    category_codes: dict[str, int]
    """Categories that no item of the bundle has; their codes follow the bundle's."""
    num_slots: int
    num_categories: int
    """How many of the slots, and of the codes, this version knows."""

    @classmethod
    def none(cls, num_in_bundle: int) -> "FreshRows":
        """Make the fresh rows of a catalogue to which nothing was upserted."""
        return cls(num_in_bundle, 0, np.zeros(0, _COLUMNS), [], {}, {}, 0, 0)

    def drop_unshown(self) -> None:
        """Take out of the shared lists and maps what came after this version, the latest that was shown.

        Items that were only checked, or could not be journalled, would stay there for good.
        """
        del self.slots[self.num_slots :]
        for shared, count in ((self.new_rows, self.num_new), (self.category_codes, self.num_categories)):
            while len(shared) > count:
                shared.popitem()  # the last one added

    def row_of_new(self, item_id: str) -> int:
        """Return the row of an item that the bundle does not have; -1: nor has this."""
        row = self.new_rows.get(item_id, -1)  # a newer version's, or one's that was never shown, perhaps
        item = self.item(row)
        return -1 if item is None or item.item_id != item_id else row

    def find(self, row: int) -> np.void | None:
        """Return the columns of a row; None when it is not fresh."""
        at = int(np.searchsorted(self.columns["row"], row))
        return self.columns[at] if at < self.columns.size and self.columns["row"][at] == row else None

    def item(self, row: int) -> ItemRow | None:
        """Return a fresh item; None when the row is not fresh."""
        found = self.find(row)
        return None if found is None else self.slots[int(found["slot"])]

    def with_codes(self, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return category codes [N] of rows, the fresh items' put into the bundle's."""
        if self.columns.size:
            at = np.minimum(np.searchsorted(self.columns["row"], rows), self.columns.size - 1)
            fresh = self.columns["row"][at] == rows
            codes[fresh] = self.columns["category"][at[fresh]]
        return codes

    def filtered(self, bits: Bits, conditions: Filter, categories: Sequence[int] | None, at_ms: int) -> None:
        """Write into the bits of the bundle's items, in place, which of the fresh items pass.

        Args: categories: codes that pass, None: all.
        """
        columns = self.columns
        passing = np.ones(columns.size, np.bool_)
        if not conditions.include_unavailable:
            passing &= (columns["start"] <= at_ms) & (at_ms < columns["end"])
        if categories is not None:
            passing &= np.isin(columns["category"], categories)
        if conditions.min_price is not None:
            passing &= columns["price"] >= conditions.min_price
        if conditions.max_price is not None:
            passing &= columns["price"] <= conditions.max_price
        set_bits(bits, columns["row"][passing])
        clear_bits(bits, columns["row"][~passing])

    def with_items(
        self, rows: np.ndarray, items: Sequence[ItemRow], category_codes: dict[str, int]
    ) -> "FreshRows":
        """Return fresh rows with more items, or other ones at the same rows.

        Args: rows: int64 [N], distinct; new ones follow those there are; category_codes: the bundle's.
        """
        slots = self.slots
        if len(slots) > 1000 + 2 * self.columns.size:  # most are unused
            slots = [self.slots[slot] for slot in self.columns["slot"].tolist()]
            columns = self.columns.copy()
            columns["slot"] = np.arange(columns.size)
        else:
            columns = self.columns
        first = len(slots)
        slots.extend(items)
        added = np.zeros(len(items), _COLUMNS)
        added["row"] = rows
        added["slot"] = np.arange(first, len(slots))
        added["category"] = [self._code(item.category, category_codes) for item in items]
        added["price"] = [np.nan if item.price is None else item.price for item in items]
        added["start"] = [NO_START if i.available_from_ms is None else i.available_from_ms for i in items]
        added["end"] = [NO_END if i.available_until_ms is None else i.available_until_ms for i in items]
        added.sort(order="row")
        new = {
            item.item_id: int(row) for item, row in zip(items, rows, strict=True) if row >= self.num_in_bundle
        }
        self.new_rows.update(new)
        num_new = max(self.num_new, int(rows.max(initial=-1)) + 1 - self.num_in_bundle)
        return FreshRows(
            self.num_in_bundle,
            num_new,
            _merged(columns, added),
            slots,
            self.new_rows,
            self.category_codes,
            len(slots),
            len(self.category_codes),
        )

    def _code(self, name: str | None, category_codes: dict[str, int]) -> int:
        if name is None:
            return NO_CATEGORY
        code = category_codes.get(name)
        if code is not None:
            return code
        return self.category_codes.setdefault(name, len(category_codes) + len(self.category_codes))


def _merged(columns: np.ndarray, added: np.ndarray) -> np.ndarray:
    """Put items into sorted columns: at their places, or between."""
    at = np.searchsorted(columns["row"], added["row"])
    known = np.append(columns["row"], -1)[at] == added["row"]
    changed = columns.copy()
    changed[at[known]] = added[known]
    merged: np.ndarray = np.insert(changed, at[~known], added[~known])
    return merged
