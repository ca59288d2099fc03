"""Histories read as sequences: one pass gives the user's state, and the keys and values of target attention.

An event goes in as its item's row and its kind; how long ago another event was is part of the pass. What
depends on the instant of a request, the age of each event, is added behind the pass, as `history` does it. So
all examples of a user that see the same events share a pass, and a state is the same in training and serving.

Shape letters: B histories, E events of all of them, S events of the sequences, U distinct items, D item row,
W state, A attention.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from recsys.batch import HistoryIndex, SequenceIndex
from recsys.errors import ConfigError
from recsys.model.history import Histories, HistoryAttention
from recsys.model.row_lists import RowLists
from recsys.model.sequence import ENCODERS, build_encoder
from recsys.model.sequence.encoder import EncoderShape
from recsys.model.sequence.event_lists import EventLists
from recsys.shapes import ATTENTION, HistoryShape


class SequenceHistory(HistoryAttention):
    """Attention over the states of a user's events; the state of the newest speaks for the user as well."""

    def __init__(self, item_dim: int, dim: int, num_kinds: int, shape: HistoryShape) -> None:
        """Build the encoder and what reads its states.

        Raises: ConfigError when the encoder is unknown.
        """
        super().__init__(item_dim, dim, num_kinds, shape.dim)
        self.encoder = build_encoder(
            shape.encoder,
            EncoderShape(
                dim=shape.dim,
                num_layers=shape.num_layers,
                num_heads=shape.num_heads,
                dropout=shape.dropout,
                timed=True,
            ),
        )
        self.event = nn.Linear(item_dim, shape.dim)
        self.event_kind = nn.Embedding(num_kinds + 1, shape.dim, padding_idx=0)
        self.newest = nn.Linear(shape.dim, dim, bias=False)

    def states(self, items_SD: Tensor, kind_S: Tensor, minute_S: Tensor, count_C: Tensor) -> Tensor:
        """Give the states [S, W] of sequences of events, oldest first. Args: items_SD: their items' rows."""
        events_SW = self.event(items_SD) + self.event_kind(kind_S)
        states_SW: Tensor = self.encoder(events_SW, minute_S, EventLists.of(count_C))
        return states_SW

    def forward(self, items_UD: Tensor, index: HistoryIndex) -> tuple[Histories, Tensor]:
        """Encode histories, and summarise each [B, A]. Args: items_UD: rows of the step's distinct items."""
        of = index.sequences
        if of is None:
            assert not index.item_E.numel(), "the batch was cut without sequences"
            of = _none(index)
        states_SW = self.states(items_UD.index_select(0, of.item_S), of.kind_S, of.minute_S, of.count_C)
        lists = RowLists(of.event_E, index.owner_E, index.start_B, of.by_event_E, states_SW.shape[0])
        newest_SA = self.newest(states_SW)
        found = replace(self.histories(states_SW, index, lists), newest_SA=newest_SA)
        return found, self.summary(found) + _of_newest(newest_SA, index, of)


def _of_newest(newest_SA: Tensor, index: HistoryIndex, of: SequenceIndex) -> Tensor:
    """Give what each history's newest event adds [B, A]; without events nothing."""
    num_events = index.item_E.numel()
    stops_B = torch.cat([index.start_B[1:], index.start_B.new_tensor([num_events])])
    some = torch.nonzero(stops_B > index.start_B).squeeze(1)
    newest = newest_SA.index_select(0, of.event_E[index.start_B[some]])
    return newest.new_zeros(index.start_B.shape[0], newest.shape[1]).index_copy(0, some, newest)


def _none(index: HistoryIndex) -> SequenceIndex:
    none = index.item_E
    return SequenceIndex(item_S=none, kind_S=none, minute_S=none, count_C=none, event_E=none, by_event_E=none)


def build_history(item_dim: int, dim: int, num_kinds: int, shape: HistoryShape) -> HistoryAttention:
    """Build what reads a user's last events.

    Raises: ConfigError listing the known names.
    """
    if shape.encoder == ATTENTION:
        return HistoryAttention(item_dim, dim, num_kinds)
    if shape.encoder not in ENCODERS:
        known = ", ".join(sorted([ATTENTION, *ENCODERS]))
        raise ConfigError(f"[model.history] encoder = {shape.encoder!r} is unknown; known: {known}")
    return SequenceHistory(item_dim, dim, num_kinds, shape)
