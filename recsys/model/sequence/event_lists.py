"""Lists of events, oldest first, concatenated; laid out in small grids for attention between events.

Everything but attention is per event and runs on the concatenated rows, without padding. For attention, lists
of like length share a grid, padded behind: an event looks back only, so it never sees what stands behind it.

Shape letters: B lists, E events of all of them, N lists of a grid, L events of its longest list, K events of
a grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SHORTEST_GRID = 4
"""Lists up to this length share a grid; each further grid takes lists up to twice as long."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Lists of like length."""

    place_NL: Tensor
    """Which event stands at a place; behind a list's end, its last event once more."""
    event_K: Tensor
    """The events of these lists, in the order of the grid's cells."""
    cell_K: Tensor
    """Their cells in the flattened grid."""


@dataclass(frozen=True, slots=True)
class EventLists:
    """Where lists begin and end, and the grids of them."""

    count_B: Tensor
    start_B: Tensor
    grids: tuple[Grid, ...]
    row_E: Tensor
    """Each event's row when the events of all grids are concatenated."""

    @classmethod
    def of(cls, count_B: Tensor) -> "EventLists":
        """Lay out lists of so many events each; a list may be empty."""
        start_B = count_B.cumsum(0) - count_B
        grids, least, most = [], 0, SHORTEST_GRID
        longest = int(count_B.max()) if count_B.numel() else 0
        while least < longest:
            chosen = torch.nonzero((count_B > least) & (count_B <= most)).squeeze(1)
            if chosen.numel():
                grids.append(_grid(start_B[chosen], count_B[chosen]))
            least, most = most, most * 2
        events = torch.cat([grid.event_K for grid in grids]) if grids else start_B[:0]
        row_E = torch.empty_like(events)
        row_E[events] = torch.arange(events.numel(), device=events.device)
        return cls(count_B, start_B, tuple(grids), row_E)


def _grid(start_N: Tensor, count_N: Tensor) -> Grid:
    step_L = torch.arange(int(count_N.max()), device=start_N.device)
    place_NL = start_N[:, None] + torch.minimum(step_L, count_N[:, None] - 1)
    cell_K = torch.nonzero((step_L < count_N[:, None]).flatten()).squeeze(1)
    return Grid(place_NL, place_NL.flatten()[cell_K], cell_K)
