"""Availability, categories and prices of the bundle's items as bitmaps.

Each of the three is made of arrays alone, so that processes may share them.
A filter costs bitmap operations (125 KB for 1M items) and at most 1/64 of the items a category or a price
bound, never a pass over all of them. Legend: I items, W items with a window, P items with a price.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from recsys.mask import Bits, Mask, clear_bits, empty_bits, set_bits, union

NO_START = np.iinfo(np.int64).min
NO_END = np.iinfo(np.int64).max
NO_CATEGORY = -1
Arrays = Mapping[str, np.ndarray]
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
    """Which items are available at an instant; the bitmap is renewed at its next change."""

    def __init__(self, arrays: Arrays, num_items: int) -> None:
        self.arrays = arrays
        self._rows, self._starts, self._ends = arrays["rows"], arrays["starts"], arrays["ends"]
        self._change_ms, self._changed = arrays["change_ms"], arrays["changed"]
        later = self._rows[self._starts != NO_START]
        self._moment = self._after(0, Mask.full(num_items).without(later))

    @classmethod
    def of(cls, starts: np.ndarray, ends: np.ndarray) -> Self:
        """List the changes.

        Args: starts: int64 [I], milliseconds, NO_START: always was; ends: int64 [I], not available from this
        instant on, NO_END: always will be.
        """
        rows = np.flatnonzero((starts != NO_START) | (ends != NO_END))
        size = starts.size
        starts, ends = starts[rows], ends[rows]
        begins, stops = np.flatnonzero(starts != NO_START), np.flatnonzero(ends != NO_END)
        at_ms = np.concatenate([starts[begins], ends[stops]])
        order = np.argsort(at_ms, kind="stable")
        changes = {"change_ms": at_ms[order], "changed": np.concatenate([begins, stops])[order]}
        return cls({"rows": rows, "starts": starts, "ends": ends, **changes}, size)

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
    """Which items a category has: a bitmap for a large one, a list of rows for a small one."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.codes, self._rows, self._first = arrays["codes"], arrays["rows"], arrays["first"]
        self._bitmaps: dict[int, Bits] = dict(zip(arrays["large"].tolist(), arrays["bitmaps"], strict=True))

    @classmethod
    def of(cls, codes: np.ndarray, num_names: int) -> Self:
        """List each category's rows. Args: codes: int32 [I], NO_CATEGORY where there is none."""
        rows = np.argsort(codes, kind="stable").astype(np.int32)
        first = np.searchsorted(codes[rows], np.arange(num_names + 1))
        large = np.flatnonzero(np.diff(first) > codes.size / _PARTS)
        bitmaps = np.zeros((large.size, empty_bits(codes.size).size), np.uint8)
        for bits, code in zip(bitmaps, large.tolist(), strict=True):
            set_bits(bits, rows[first[code] : first[code + 1]])
        return cls({"codes": codes, "rows": rows, "first": first, "large": large, "bitmaps": bitmaps})

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
    """Which items cost less than an amount: prices sorted, with a bitmap at each of 64 places."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self._rows, self._sorted, self._bitmaps = arrays["rows"], arrays["sorted"], arrays["bitmaps"]
        self._step = _price_step(self._rows.size)

    @classmethod
    def of(cls, prices: np.ndarray) -> Self:
        """Sort prices float64 [I], minor units; NaN where there is none."""
        priced = np.flatnonzero(~np.isnan(prices))
        rows = priced[np.argsort(prices[priced], kind="stable")].astype(np.int32)
        bitmaps = [empty_bits(prices.size)]
        step = _price_step(rows.size)
        for start in range(0, rows.size, step):
            bitmaps.append(bitmaps[-1].copy())
            set_bits(bitmaps[-1], rows[start : start + step])
        return cls({"rows": rows, "sorted": prices[rows], "bitmaps": np.stack(bitmaps)})

    def bits(self, lowest: int | None, highest: int | None) -> Bits:
        """Return the bits of the items with a price from `lowest` to `highest`, both included."""
        first = 0 if lowest is None else int(np.searchsorted(self._sorted, lowest, side="left"))
        stop = self._rows.size
        if highest is not None:
            stop = int(np.searchsorted(self._sorted, highest, side="right"))
        if stop <= first:
            return np.zeros_like(self._bitmaps[0])
        bits = self._cheapest(stop)
        if first:
            words = bits.view(np.uint64)
            np.bitwise_and(words, ~self._cheapest(first).view(np.uint64), out=words)
        return bits

    def _cheapest(self, count: int) -> Bits:
        part = count // self._step
        bits: Bits = self._bitmaps[part].copy()
        set_bits(bits, self._rows[part * self._step : count])
        return bits


def _price_step(num_priced: int) -> int:
    """Return how many prices lie between two bitmaps."""
    return max(1, -(-num_priced // _PARTS))
