"""Histories of a batch -> the sequences that they are beginnings of, each listed once.

A history's state is that of its newest event in a pass over its events, oldest first. Of two histories that
begin with the same event, the shorter is the beginning of the longer, so one pass gives both states: exactly
what a server computes from the shorter one alone. Only a history that lost an event to a reversal, or that
begins later because it is at its full length, needs a pass of its own.

Shapes: B rows, E events of histories, C sequences, S events of sequences.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from features.sequences import EncodedEvents, EncodedHistories, minutes_of
from recsys.batch import SequenceIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Which histories are beginnings of which sequences."""

    source: np.ndarray
    """int64 [S]: an event of a history that each event of a sequence is."""
    counts: np.ndarray
    """int64 [C]: events of each sequence."""
    event: np.ndarray
    """int64 [E]: which event of a sequence each event of a history is."""

    @classmethod
    def of(cls, histories: EncodedHistories) -> "Sequences":
        """List each sequence once."""
        counts = np.diff(histories.offsets)
        some = np.flatnonzero(counts)
        oldest = histories.events[histories.offsets[some + 1] - 1]
        apart = np.where(histories.whole[some], -1, some)
        # Of equal keys the longest history comes first.
        order = np.lexsort((-counts[some], apart, oldest))
        first = np.ones(order.size, np.bool_)
        first[1:] = (np.diff(oldest[order]) != 0) | (np.diff(apart[order]) != 0)
        longest = some[order[first]]
        sequence = np.full(counts.size, -1)
        sequence[some[order]] = np.cumsum(first) - 1
        lengths = counts[longest]
        starts = np.cumsum(lengths) - lengths
        steps = np.arange(lengths.sum()) - np.repeat(starts, lengths)
        source = np.repeat(histories.offsets[longest + 1] - 1, lengths) - steps
        from_oldest = np.repeat(histories.offsets[1:] - 1, counts) - np.arange(counts.sum())
        event = starts[sequence[histories.rows]] + from_oldest if counts.sum() else from_oldest
        return cls(source=source, counts=lengths, event=event)

    def index(self, histories: EncodedHistories, events: EncodedEvents, item_E: Tensor) -> SequenceIndex:
        """Give what a model reads. Args: item_E: position of each event's item in the step's rows."""
        source = torch.from_numpy(self.source)
        return SequenceIndex(
            item_S=item_E[source],
            kind_S=torch.from_numpy(histories.kinds)[source],
            minute_S=torch.from_numpy(minutes_of(events.at[histories.events[self.source]])),
            count_C=torch.from_numpy(self.counts),
            event_E=torch.from_numpy(self.event),
            by_event_E=torch.from_numpy(np.argsort(self.event, kind="stable")),
        )
