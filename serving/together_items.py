"""What users took together with the items that a user took lately: a source of candidates.

Legend: I items of the bundle, K neighbours, N rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from features.together import LATEST, neighbours_of
from serving.catalogue import Catalogue
from serving.protocols import PastEvent, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class TogetherItems:
    """Neighbours by bundle row; without any, nothing is found."""

    neighbours: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    """Rows [I, K], best first; negative: no neighbour."""
    kinds: frozenset[str] = frozenset()
    """Feedback that says an item was taken."""

    def of_user(self, history: Sequence[PastEvent], catalogue: Catalogue) -> Rows:
        """List the neighbours of a user's latest items. Args: history: newest first."""
        if not self.neighbours.size:
            return np.zeros(0, np.int64)
        latest = [event.item_id for event in history[:LATEST] if event.kind in self.kinds]
        rows = catalogue.rows_of(dict.fromkeys(latest))
        return neighbours_of(self.neighbours, rows)
