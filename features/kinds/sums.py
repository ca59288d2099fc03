"""Sums of numbers that come in pieces: to the bit what they are of all numbers together.

`np.sum` of a contiguous array halves it again and again and adds the halves' sums. The same halves are summed
here, without holding more than the last of them: a statistic does not depend on how a day was read.
"""

from collections.abc import Iterable, Iterator

import numpy as np

LEAF = 1 << 16
"""Numbers that are summed at once; any power of two from 128 on gives the same sum."""


def sum_of(pieces: Iterable[np.ndarray], count: int) -> float:
    """Sum float64 numbers [count] that come in pieces, as `np.sum` does it of their concatenation."""
    return _sum(_Numbers(pieces), count)


class _Numbers:
    """Hands out numbers so many at a time."""

    def __init__(self, pieces: Iterable[np.ndarray]) -> None:
        self._pieces: Iterator[np.ndarray] = iter(pieces)
        self._left = np.zeros(0)

    def take(self, count: int) -> np.ndarray:
        found = [self._left]
        missing = count - self._left.size
        while missing > 0:
            found.append(next(self._pieces))
            missing -= found[-1].size
        whole = np.concatenate(found) if len(found) > 1 else self._left
        self._left = whole[count:]
        return whole[:count]


def _sum(numbers: _Numbers, count: int) -> float:
    if count <= LEAF:
        return float(np.sum(numbers.take(count)))
    half = count // 2
    half -= half % 8
    return _sum(numbers, half) + _sum(numbers, count - half)
