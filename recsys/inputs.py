"""Encoded inputs as numpy arrays, passed from `features` to a scorer; without torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Bag:
    """Lists of numbers of N rows, concatenated.

    values int64 [T]; offsets int64 [N + 1]: row n's values are values[offsets[n] : offsets[n + 1]].
    """

    values: np.ndarray
    offsets: np.ndarray

    @property
    def size(self) -> int:
        """Count the rows."""
        return self.offsets.size - 1

    def take(self, rows: np.ndarray) -> "Bag":
        """Select rows by index."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return Bag(self.values[np.repeat(self.offsets[:-1][rows], lengths) + within], offsets)

    def with_empty_row(self) -> "Bag":
        """Append a row without values."""
        return Bag(self.values, np.append(self.offsets, self.offsets[-1]))


@dataclass(frozen=True, slots=True)
class CrossInputs:
    """One user's encoded aggregates by one item column.

    keys [K]: the column's values for which the user has aggregates; numbers float32 [K + 1, F]: the last row
    is for all other values.
    """

    keys: tuple[str, ...]
    numbers: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInputs:
    """One user's encoded inputs at a request, as numpy: what the online read hands to the scorer."""

    ids: np.ndarray
    """int64 [C], in the order of the user's features with one id."""
    numbers: np.ndarray
    """float32 [F]."""
    history_items: np.ndarray
    """int64 [L] item numbers of the events that stand, newest first."""
    history_kinds: np.ndarray
    """Kind codes, from 1."""
    history_ages: np.ndarray
    history_minutes: np.ndarray
    """When each was received, in minutes from any instant; int64 [L]."""
    bags: tuple[np.ndarray, ...] = ()
    """Per feature with a list of ids, the user's numbers of its vocabulary, int64 [T]."""
    crosses: tuple[CrossInputs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextInputs:
    """One request's encoded context: ids int64 [C], numbers float32 [F]."""

    ids: np.ndarray
    numbers: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemInputs:
    """Encoded catalogue: ids int64 [I, C], numbers float32 [I, F], text float32 [I, T], in item-row order."""

    ids: np.ndarray
    numbers: np.ndarray
    text: np.ndarray
    bags: tuple[Bag, ...] = ()
    groups: tuple[Sequence[str | None], ...] = ()
    """Per cross feature the item's value [I] of the column that users' aggregates are kept by."""
