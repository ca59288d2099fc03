"""Base class of the encoders of sequences: what an event's state is, and how layers are stacked.

Shape letters: E events, D dimensions, H heads, N lists, L events of a list.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.model.sequence.event_lists import EventLists, Grid

MOST_STEPS = 64
"""Steps back that have a bias of their own; what is further back has that of the last."""
NUM_GAPS = 24
"""Buckets of the time between two events, in powers of two of a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """Sizes of an encoder."""

    dim: int = 128
    num_layers: int = 2
    num_heads: int = 2
    widen: int = 2
    """Width of a feed-forward layer, in multiples of `dim`."""
    dropout: float = 0.2
    timed: bool = False
    """False: events have an order and no time."""


class SequenceLayer(nn.Module):
    """Map events' states [E, D] to states, each from its own and earlier ones of its list."""

    def __init__(self, shape: EncoderShape) -> None:
        """Build the bias of pairs."""
        super().__init__()
        self.num_heads = shape.num_heads
        self.bias = PairBias(shape)

    def look_back(
        self, parts: tuple[Tensor, Tensor, Tensor], lists: EventLists, minutes_E: Tensor, mix: "Mix"
    ) -> Tensor:
        """Mix each event's value with earlier ones of its list.

        Args: parts: queries, keys and values [E, D] each, all heads side by side; mix: what turns scores
        [N, H, L, L], -inf where an event is later, into weights.
        """
        found = []
        for grid in lists.grids:
            query, key, value = (self._laid(part_ED, grid) for part_ED in parts)
            score_NHLL = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
            mixed_NHLD = mix(score_NHLL + self.bias(minutes_E, grid)) @ value
            rows = mixed_NHLD.transpose(1, 2).flatten(0, 1).flatten(1)
            found.append(rows.index_select(0, grid.cell_K))
        if not found:
            return parts[2]
        return torch.cat(found).index_select(0, lists.row_E)

    def _laid(self, part_ED: Tensor, grid: Grid) -> Tensor:
        laid = part_ED.index_select(0, grid.place_NL.flatten())
        return laid.view(*grid.place_NL.shape, self.num_heads, -1).transpose(1, 2)


Mix = Callable[[Tensor], Tensor]


class PairBias(nn.Module):
    """What a pair of events adds to its score, by the steps and the time between them (Zhai et al. 2024)."""

    def __init__(self, shape: EncoderShape) -> None:
        """Begin as if each step back weighed less, by a rate of each head's own (Press et al. 2022)."""
        super().__init__()
        rate_H = 2.0 ** -torch.arange(1.0, shape.num_heads + 1)
        back_S1 = torch.arange(float(MOST_STEPS)).clamp_max(16)[:, None]
        self.step_SH = nn.Parameter(-back_S1 * rate_H)
        self.gap_GH = nn.Parameter(torch.zeros(NUM_GAPS, shape.num_heads)) if shape.timed else None

    def forward(self, minutes_E: Tensor, grid: Grid) -> Tensor:
        """Give the bias [N or 1, H, L, L]; the second L is the earlier event's; -inf where it is later."""
        step_L = torch.arange(grid.place_NL.shape[1], device=grid.place_NL.device)
        back_LL = step_L[:, None] - step_L
        bias_HLL = functional.embedding(back_LL.clamp(0, MOST_STEPS - 1), self.step_SH).permute(2, 0, 1)
        bias_NHLL = bias_HLL.masked_fill(back_LL < 0, -torch.inf)[None]
        if self.gap_GH is None:
            return bias_NHLL
        gap_NLL = gap_buckets(minutes_E[grid.place_NL])
        return bias_NHLL + functional.embedding(gap_NLL, self.gap_GH).permute(0, 3, 1, 2)


class SequenceEncoder(nn.Module):
    """Map events to states: an event's state is what its list says of the user right after that event.

    A state depends on its own and earlier events of its list alone, and on the steps and the time between
    them: that of a list's last event is the same whatever other lists stand beside it.
    """

    layer: type[SequenceLayer]

    def __init__(self, shape: EncoderShape) -> None:
        """Stack the layers."""
        super().__init__()
        self.dropout = nn.Dropout(shape.dropout)
        self.layers = nn.ModuleList(self.layer(shape) for _ in range(shape.num_layers))
        self.norm = nn.LayerNorm(shape.dim)

    def forward(self, events_ED: Tensor, minutes_E: Tensor, lists: EventLists) -> Tensor:
        """Give the states [E, D].

        Args: events_ED: what each event is; minutes_E: when it was, from any instant, rising inside a list.
        """
        x_ED = self.dropout(events_ED)
        for layer in self.layers:
            x_ED = layer(x_ED, minutes_E, lists)
        states_ED: Tensor = self.norm(x_ED)
        return states_ED


def gap_buckets(minutes_NL: Tensor) -> Tensor:
    """Put the time between the events of each list into buckets: int64 [N, L, L]; 0: less than a minute."""
    gap_NLL = (minutes_NL[:, :, None] - minutes_NL[:, None, :]).clamp_min(0)
    return (1 + gap_NLL).log2().long().clamp_max(NUM_GAPS - 1)
