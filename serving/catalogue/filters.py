"""Availability, categories and prices of the bundle's items as bitmaps.

A filter costs bitmap operations (125 KB for 1M items) and at most 1/64 of the items a category or a price
bound, never a pass over all of them. Legend: I items, W items with a window, P items with a price.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from recsys.mask import Bits, Mask, clear_bits, empty_bits, set_bits, union

NO_START = np.iinfo(np.int64).min
NO_END = np.iinfo(np.int64).max
NO_CATEGORY = -1
_PARTS = 64
"""Prices have a bitmap at each 64th; categories of more than a 64th of the items have one."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """The available items from one change until the next."""

    since_ms: int
    before_ms: int
    num_changes: int
    """Changes that have happened."""
    mask: Mask


class Availability:
    """Which items are available at an instant; the bitmap is renewed at its next change.

    Args: starts: int64 [I], milliseconds, NO_START: always was; ends: int64 [I], not available from this
    instant on, NO_END: always will be.
    """

    def __init__(self, starts: np.ndarray, ends: np.ndarray) -> None:
        self._rows = np.flatnonzero((starts != NO_START) | (ends != NO_END))
        self._starts, self._ends = starts[self._rows], ends[self._rows]
        begins, stops = np.flatnonzero(self._starts != NO_START), np.flatnonzero(self._ends != NO_END)
        at_ms = np.concatenate([self._starts[begins], self._ends[stops]])
        order = np.argsort(at_ms, kind="stable")
        self._change_ms = at_ms[order]
        self._changed = np.concatenate([begins, stops])[order]
        mask = Mask.full(starts.size).without(self._rows[begins])
        self._moment = self._after(0, mask)

    def at(self, at_ms: int) -> Mask:
        """Return the items available at an instant. Threads may ask for instants in any order."""
        moment = self._moment
        if not moment.since_ms <= at_ms < moment.before_ms:
            moment = self._moment = self._moved(moment, at_ms)
        return moment.mask

    def _moved(self, moment: _Moment, at_ms: int) -> _Moment:
        num = int(np.searchsorted(self._change_ms, at_ms, side="right"))
        first, last = sorted((moment.num_changes, num))
        changed = self._changed[first:last]
        available = (self._starts[changed] <= at_ms) & (at_ms < self._ends[changed])
        bits = moment.mask.bits.copy()
        set_bits(bits, self._rows[changed[available]])
        clear_bits(bits, self._rows[changed[~available]])
        return self._after(num, Mask.of_bits(bits, moment.mask.size))

    def _after(self, num_changes: int, mask: Mask) -> _Moment:
        since = int(self._change_ms[num_changes - 1]) if num_changes else int(NO_START)
        last = num_changes == self._change_ms.size
        return _Moment(since, int(NO_END) if last else int(self._change_ms[num_changes]), num_changes, mask)


class Categories:
    """Which items a category has: a bitmap for a large one, a list of rows for a small one.

    Args: codes: int32 [I], NO_CATEGORY where there is none; num_names: number of categories.
    """

    def __init__(self, codes: np.ndarray, num_names: int) -> None:
        self.codes = codes
        order = np.argsort(codes, kind="stable").astype(np.int32)
        self._first = np.searchsorted(codes[order], np.arange(num_names + 1))
        self._rows = order
        sizes = np.diff(self._first)
        self._bitmaps = {
            code: Mask.of_rows(self._rows_of(code), codes.size).bits
            for code in np.flatnonzero(sizes > codes.size / _PARTS).tolist()
        }

    def bits(self, wanted: Iterable[int]) -> Bits:
        """Return the bits of the items of some categories."""
        codes = list(wanted)
        bits = union([self._bitmaps[code] for code in codes if code in self._bitmaps], self.codes.size)
        for code in codes:
            if code not in self._bitmaps:
                set_bits(bits, self._rows_of(code))
        return bits

    def _rows_of(self, code: int) -> np.ndarray:
        rows: np.ndarray = self._rows[self._first[code] : self._first[code + 1]]
        return rows


class Prices:
    """Which items cost less than an amount: prices sorted, with a bitmap at each of 64 places.

    Args: prices: float64 [I], minor units; NaN where there is none.
    """

    def __init__(self, prices: np.ndarray) -> None:
        self._size = prices.size
        priced = np.flatnonzero(~np.isnan(prices))
        order = np.argsort(prices[priced], kind="stable")
        self._rows = priced[order].astype(np.int32)
        self._sorted = prices[self._rows]
        self._step = max(1, -(-self._rows.size // _PARTS))
        self._bitmaps = [empty_bits(prices.size)]
        for start in range(0, self._rows.size, self._step):
            bits = self._bitmaps[-1].copy()
            set_bits(bits, self._rows[start : start + self._step])
            self._bitmaps.append(bits)

    def bits(self, lowest: int | None, highest: int | None) -> Bits:
        """Return the bits of the items with a price from `lowest` to `highest`, both included."""
        first = 0 if lowest is None else int(np.searchsorted(self._sorted, lowest, side="left"))
        stop = self._rows.size
        if highest is not None:
            stop = int(np.searchsorted(self._sorted, highest, side="right"))
        if stop <= first:
            return empty_bits(self._size)
        bits = self._cheapest(stop)
        if first:
            words = bits.view(np.uint64)
            np.bitwise_and(words, ~self._cheapest(first).view(np.uint64), out=words)
        return bits

    def _cheapest(self, count: int) -> Bits:
        part = count // self._step
        bits = self._bitmaps[part].copy()
        set_bits(bits, self._rows[part * self._step : count])
        return bits
