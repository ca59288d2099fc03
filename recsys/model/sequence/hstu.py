"""HSTU: hierarchical sequential transduction unit, attention without softmax.

Source: Zhai et al., ICML 2024 (equations 1 to 3).

Shape letters: E events, D dimensions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.model.sequence.encoder import EncoderShape, SequenceEncoder, SequenceLayer
from recsys.model.sequence.event_lists import EventLists

USUAL_EVENTS = 50
"""What a sum over events is divided by; the layer's norm takes any other number as well."""


def pointwise_weights(score_NHLL: Tensor) -> Tensor:
    """Weigh earlier events by SiLU: weights of one event need not add up to 1."""
    later = torch.isneginf(score_NHLL)
    weight_NHLL = functional.silu(score_NHLL.masked_fill(later, 0.0)) / USUAL_EVENTS
    return weight_NHLL.masked_fill(later, 0.0)


class PointwiseLayer(SequenceLayer):
    """Sum values by SiLU of their scores, and gate the sum by the event: strength of a taste is kept."""

    def __init__(self, shape: EncoderShape) -> None:
        """Build the projections."""
        super().__init__(shape)
        self.norm, self.sum_norm = nn.LayerNorm(shape.dim), nn.LayerNorm(shape.dim)
        self.parts = nn.Linear(shape.dim, 4 * shape.dim)
        self.mixed = nn.Linear(shape.dim, shape.dim)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x_ED: Tensor, minutes_E: Tensor, lists: EventLists) -> Tensor:
        """Give the states [E, D]."""
        gate_ED, *parts = functional.silu(self.parts(self.norm(x_ED))).chunk(4, dim=1)
        seen_ED = self.look_back((parts[0], parts[1], parts[2]), lists, minutes_E, pointwise_weights)
        states_ED: Tensor = x_ED + self.mixed(self.dropout(gate_ED * self.sum_norm(seen_ED)))
        return states_ED


class Hstu(SequenceEncoder):
    """Layers of pointwise attention."""

    layer = PointwiseLayer
