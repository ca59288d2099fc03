"""SASRec's causal self-attention, with gated layers.

Source: Kang & McAuley, ICDM 2018; the layer: Borisyuk et al. 2025 (LiGR), as eSASRec uses it (Tikhonovich et
al., RecSys 2025). The steps back are a bias of attention, where SASRec adds a vector per place: a list that
moves on by an event keeps its places.

Shape letters: E events, D dimensions, W width of the feed-forward layer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.model.sequence.encoder import EncoderShape, SequenceEncoder, SequenceLayer
from recsys.model.sequence.event_lists import EventLists


def softmax_weights(score_NHLL: Tensor) -> Tensor:
    """Weigh earlier events by softmax."""
    return score_NHLL.softmax(dim=3)


class GatedLayer(SequenceLayer):
    """Softmax attention, then a SwiGLU layer; each adds as much as a gate of its input lets through."""

    def __init__(self, shape: EncoderShape) -> None:
        """Build both halves."""
        super().__init__(shape)
        dim, width = shape.dim, shape.widen * shape.dim
        self.norm, self.forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.parts = nn.Linear(dim, 3 * dim)
        self.mixed = nn.Linear(dim, dim)
        self.widened, self.narrowed = nn.Linear(dim, 2 * width), nn.Linear(width, dim)
        self.gate, self.forward_gate = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x_ED: Tensor, minutes_E: Tensor, lists: EventLists) -> Tensor:
        """Give the states [E, D]."""
        query_ED, key_ED, value_ED = self.parts(self.norm(x_ED)).chunk(3, dim=1)
        seen_ED = self.look_back((query_ED, key_ED, value_ED), lists, minutes_E, softmax_weights)
        x_ED = x_ED + torch.sigmoid(self.gate(x_ED)) * self.dropout(self.mixed(seen_ED))
        open_EW, value_EW = self.widened(self.forward_norm(x_ED)).chunk(2, dim=1)
        thought_ED = self.narrowed(self.dropout(functional.silu(open_EW) * value_EW))
        states_ED: Tensor = x_ED + torch.sigmoid(self.forward_gate(x_ED)) * self.dropout(thought_ED)
        return states_ED


class SasRec(SequenceEncoder):
    """Gated layers of softmax attention."""

    layer = GatedLayer
