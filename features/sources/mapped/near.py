"""Words that are one slip of the pen apart."""

from typing import Final

_SHORT: Final = 4
"""Shorter words are too near to many others."""
_LONG: Final = 9
"""Of such words two letters may slip."""


def near(one: str, other: str) -> bool:
    """Tell whether two words are a slip apart: a letter more, less, other or elsewhere; in long words two."""
    if one == other or min(len(one), len(other)) < _SHORT:
        return False
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) > 1 and long.endswith(short):  # unsubscribe
        return False
    return _slips(one, other) <= (2 if len(short) >= _LONG else 1)


def _slips(one: str, other: str) -> int:
    """Count the changes from one word to another (optimal string alignment)."""
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            best = min(rows[-1][j] + 1, row[j - 1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]
