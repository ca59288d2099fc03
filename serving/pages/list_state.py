"""How far a list was shown: everything that its next page needs to know of the pages before."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from recsys.policy import PrefixProbability

MAX_SHOWN = 500
"""A list ends when this many items were shown."""
LIST_ID_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ListState:
    """A list before one of its pages."""

    list_id: str
    seed: int
    """Of all random numbers of the list: each page takes its own by its first position."""
    start: int = 0
    """First position of the page, from 0."""
    prefix: PrefixProbability | None = None
    """None before page 1: the coin is not flipped yet."""
    shown: frozenset[int] = frozenset()
    """`id_hash` of the items on the pages before: 64 bits, so of a million items one that was not shown is
    taken for a shown one in 4e10 lists."""

    @classmethod
    def begin(cls, seed: int | None) -> "ListState":
        """Begin a list, with a new seed unless the caller names one."""
        new_seed = int.from_bytes(os.urandom(8)) >> 1
        return cls(list_id=os.urandom(LIST_ID_BYTES).hex(), seed=new_seed if seed is None else seed)

    def after(self, shown: Sequence[int], prefix: PrefixProbability) -> "ListState":
        """Return the list after a page. Args: shown: `id_hash` of its items."""
        return ListState(
            list_id=self.list_id,
            seed=self.seed,
            start=self.start + len(shown),
            prefix=prefix,
            shown=self.shown.union(shown),
        )
