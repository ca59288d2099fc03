"""An item column (like category) as codes by row, to find a user's aggregate of a candidate's group.

Legend: F fresh items, I items of the bundle, N rows asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_NONE = 0


@dataclass(frozen=True, slots=True)
class GroupCodes:
    """Codes number the distinct values from 1; 0 is none. Fresh items' codes lie beside the bundle's."""

    names: Mapping[str, int]
    codes: np.ndarray
    """int32 [I], the bundle's."""
    fresh_names: Mapping[str, int]
    """Values that no item of the bundle has."""
    fresh_rows: np.ndarray
    """int64 [F], ascending."""
    fresh_codes: np.ndarray
    """int32 [F]; an item of the bundle that is here has this code instead."""

    @classmethod
    def of(cls, values: Sequence[str | None]) -> "GroupCodes":
        """Number the distinct values of the bundle's items."""
        names: dict[str, int] = {}
        codes = [_NONE if v is None else names.setdefault(v, len(names) + 1) for v in values]
        return cls.with_names(names, np.array(codes, np.int32))

    @classmethod
    def with_names(cls, names: Iterable[str], codes: np.ndarray) -> "GroupCodes":
        """Give the bundle's items these codes [I]. Args: names: the values, in the order of their codes."""
        none = np.zeros(0, np.int64)
        return cls({name: n for n, name in enumerate(names, start=1)}, codes, {}, none, none.astype(np.int32))

    def with_rows(self, rows: np.ndarray, values: Sequence[str | None]) -> "GroupCodes":
        """Return codes that also contain these fresh items' values [F], at distinct rows.

        The work grows with the fresh items alone.
        """
        fresh_names = dict(self.fresh_names)
        for value in values:
            if value is not None and value not in self.names:
                fresh_names.setdefault(value, 1 + len(self.names) + len(fresh_names))
        found = [_code(value, self.names, fresh_names) for value in values]
        kept = ~np.isin(self.fresh_rows, rows)
        all_rows = np.concatenate([self.fresh_rows[kept], rows])
        all_codes = np.concatenate([self.fresh_codes[kept], np.array(found, np.int32)])
        order = np.argsort(all_rows)
        return GroupCodes(self.names, self.codes, fresh_names, all_rows[order], all_codes[order])

    def positions(self, keys: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Return for rows [N] the positions of their values in keys; len(keys) where a value is missing.

        Of a key that comes twice the last counts.
        """
        by_code = {_code(key, self.names, self.fresh_names): at for at, key in enumerate(keys)}
        by_code.pop(_NONE, None)
        codes = np.array(sorted(by_code), np.int64)
        at = np.array([by_code[code] for code in codes.tolist()] + [len(keys)], np.int64)
        wanted = self._codes_of(rows)
        found = np.searchsorted(codes, wanted)
        hit = np.append(codes, -1)[found] == wanted
        positions: np.ndarray = np.where(hit, at[found], len(keys))
        return positions

    def _codes_of(self, rows: np.ndarray) -> np.ndarray:
        if not self.fresh_rows.size:
            bundle_codes: np.ndarray = self.codes[rows]
            return bundle_codes
        at = np.minimum(np.searchsorted(self.fresh_rows, rows), self.fresh_rows.size - 1)
        fresh = self.fresh_rows[at] == rows
        codes = np.empty(rows.size, np.int32)
        codes[fresh] = self.fresh_codes[at[fresh]]
        codes[~fresh] = self.codes[rows[~fresh]]
        return codes


def _code(value: str | None, names: Mapping[str, int], fresh_names: Mapping[str, int]) -> int:
    if value is None:
        return _NONE
    return names.get(value) or fresh_names.get(value, _NONE)
