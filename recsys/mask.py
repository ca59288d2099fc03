"""A set of catalogue rows as a packed bitmap, as FAISS's IDSelectorBitmap reads it: 125 KB for 1M rows.

Bit `row % 8` (little bit order) of byte `row // 8` belongs to a row. Bits past the last row are 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

Bits = np.ndarray
_WORD = 8
"""Bytes of a word: bitmaps are whole 64-bit words, so that they are combined and counted word by word."""


@dataclass(frozen=True, slots=True)
class Mask:
    """Some of `size` rows; never changed."""

    bits: Bits
    """uint8 [W], whole 64-bit words."""
    size: int
    """Number of rows that the bits tell of."""
    count: int
    """Number of rows in the set."""

    @classmethod
    def full(cls, size: int) -> "Mask":
        """Make the set of all rows."""
        bits = empty_bits(size)
        bits[: size // 8] = 0xFF
        if size % 8:
            bits[size // 8] = (1 << size % 8) - 1
        return cls(bits, size, size)

    @classmethod
    def of_rows(cls, rows: np.ndarray, size: int) -> "Mask":
        """Make the set of some rows; a row may come twice."""
        bits = empty_bits(size)
        set_bits(bits, rows)
        return cls.of_bits(bits, size)

    @classmethod
    def of_bools(cls, allowed: np.ndarray) -> "Mask":
        """Make a set from bools [I] by row."""
        bits = empty_bits(allowed.size)
        bits[: (allowed.size + 7) // 8] = np.packbits(allowed, bitorder="little")
        return cls(bits, allowed.size, int(np.count_nonzero(allowed)))

    @classmethod
    def of_bits(cls, bits: Bits, size: int) -> "Mask":
        """Make a set from whole words whose bits past `size` are 0; the bits are not copied."""
        return cls(bits, size, count_bits(bits))

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, rows: int) -> bool: ...
    @overload
    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...
    def __getitem__(self, rows: int | np.ndarray) -> bool | np.ndarray:
        """Tell whether rows are in the set, one or many [N]."""
        if isinstance(rows, np.ndarray):
            found: np.ndarray = (self.bits[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 == 1
            return found
        return bool(self.bits[rows >> 3] >> (rows & 7) & 1)

    def bools(self) -> np.ndarray:
        """Unpack to bools [I]: a byte a row, for what cannot read bits."""
        return np.unpackbits(self.bits, count=self.size, bitorder="little").view(np.bool_)

    def rows(self) -> np.ndarray:
        """List the rows of the set, ascending: int64 [count]. Work and memory grow with the count."""
        return self.first(self.count)

    def first(self, k: int) -> np.ndarray:
        """List the first k rows of the set, ascending; fewer when there are fewer."""
        k = min(k, self.count)
        words = self.bits.view(np.uint64)
        at = np.flatnonzero(words)[:k]  # k words hold k rows at least
        at = at[: int(np.searchsorted(np.cumsum(np.bitwise_count(words[at]), dtype=np.int64), k)) + 1]
        bytes_of = self.bits.reshape(-1, _WORD)[at]
        row_of, bit = np.nonzero(np.unpackbits(bytes_of, axis=1, bitorder="little"))
        found: np.ndarray = at[row_of[:k]] * 64 + bit[:k]
        return found.astype(np.int64, copy=False)

    def without(self, rows: np.ndarray) -> "Mask":
        """Return the set without some rows."""
        if not rows.size:
            return self
        bits = self.bits.copy()
        clear_bits(bits, rows)
        return Mask.of_bits(bits, self.size)

    def __and__(self, other: "Mask") -> "Mask":
        """Return the rows that are in both sets of one size."""
        return Mask.of_bits(intersection([self.bits, other.bits]), self.size)

    def resized(self, size: int) -> "Mask":
        """Return the set over more rows, which it does not have, or over the first rows alone."""
        if size == self.size:
            return self
        bits = empty_bits(size)
        common = min(bits.size, self.bits.size)
        bits[:common] = self.bits[:common]
        if size < self.size:
            bits[size // 8 + 1 :] = 0
            if size % 64:
                bits[size // 8] &= (1 << size % 8) - 1
        return Mask.of_bits(bits, size)


def empty_bits(size: int) -> Bits:
    """Make bits of no row, in whole words."""
    return np.zeros((size + 63) // 64 * _WORD, np.uint8)


def count_bits(bits: Bits) -> int:
    """Count the bits that are set, word by word."""
    return int(np.bitwise_count(bits.view(np.uint64)).sum(dtype=np.int64))


def set_bits(bits: Bits, rows: np.ndarray) -> None:
    """Set the bits of rows [N], in place."""
    np.bitwise_or.at(bits, rows >> 3, np.left_shift(1, rows & 7, dtype=np.uint8, casting="unsafe"))


def clear_bits(bits: Bits, rows: np.ndarray) -> None:
    """Clear the bits of rows [N], in place."""
    np.bitwise_and.at(bits, rows >> 3, ~np.left_shift(1, rows & 7, dtype=np.uint8, casting="unsafe"))


def union(parts: Sequence[Bits], size: int) -> Bits:
    """Return the bits that are set in any part."""
    return _combined(np.bitwise_or, parts) if parts else empty_bits(size)


def intersection(parts: Sequence[Bits]) -> Bits:
    """Return the bits that are set in all parts, of which there is one at least."""
    return _combined(np.bitwise_and, parts)


def _combined(operation: Callable[..., Bits], parts: Sequence[Bits]) -> Bits:
    bits = parts[0].copy()
    words = bits.view(np.uint64)
    for part in parts[1:]:
        operation(words, part.view(np.uint64), out=words)
    return bits
