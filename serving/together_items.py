"""What users took together with the items that a user took lately: a source of candidates.

Legend: I items of the bundle, K neighbours, N rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from features.together import neighbours_of
from serving.protocols import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class TogetherItems:
    """Neighbours by bundle row; without any, nothing is found."""

    neighbours: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    """Rows [I, K], best first; negative: no neighbour."""
    kinds: frozenset[str] = frozenset()
    """Feedback that says an item was taken."""

    def of_user(self, latest: Iterable[tuple[int, str]]) -> Rows:
        """List the neighbours of a user's latest items.

        Args: latest: row (negative: not in the catalogue) and kind of each event, newest first.
        """
        if not self.neighbours.size:
            return np.zeros(0, np.int64)
        taken = dict.fromkeys(row for row, kind in latest if kind in self.kinds and row >= 0)
        return neighbours_of(self.neighbours, np.array(list(taken), np.int64))
