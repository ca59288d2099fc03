"""Histories of a batch -> the sequences that they are beginnings of, each listed once.

A history's state is that of its newest event in a pass over its events, oldest first. Of two histories that
begin with the same event, the shorter is the beginning of the longer, so one pass gives both states: exactly
what a server computes from the shorter one alone. Only a history that lost an event to a reversal, or that
begins later because it is at its full length, needs a pass of its own.

Shapes: B rows, E events of histories, C sequences, S events of sequences.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import torch
from torch import Tensor

from features.encode import Encoded
from features.sequences import EncodedEvents, EncodedHistories, minutes_of
from recsys.batch import BagIndex, NextItems, SequenceIndex
from recsys.config import Period, period_start
from recsys.log import period_end
from training.data.encoded_rows import EncodedRows


def began_ms(day: date, period: Period, timezone: str) -> int:
    """Give the instant at which the period of a business day begins."""
    before = period_start(day, period) - timedelta(days=1)
    return int(period_end(before, timezone).timestamp() * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Which items came after events of sequences."""

    items: Encoded
    """The distinct items [T]."""
    rows: np.ndarray
    """int64 [T]: their rows in the day's snapshot."""
    before: np.ndarray
    """int64 [P]: the event of a sequence after which an item came."""
    place: np.ndarray
    """int64 [P]: which of the items it was."""

    def index(self, index: dict[str, Tensor], bags: dict[str, BagIndex], popularity: np.ndarray) -> NextItems:
        """Give what the loss reads. Args: index, bags: the items' features among the step's rows."""
        return NextItems(
            index=index,
            bags=bags,
            numbers_TF=torch.from_numpy(self.items.numbers),
            text_TT=torch.from_numpy(self.items.text),
            share_T=torch.from_numpy(popularity[self.rows].astype(np.float32)),
            item_T=torch.from_numpy(self.rows),
            event_P=torch.from_numpy(self.before),
            place_P=torch.from_numpy(self.place),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Which histories are beginnings of which sequences."""

    source: np.ndarray
    """int64 [S]: an event of a history that each event of a sequence is."""
    counts: np.ndarray
    """int64 [C]: events of each sequence."""
    event: np.ndarray
    """int64 [E]: which event of a sequence each event of a history is."""
    followed: Followed | None = None
    """Where next items are learned and there are any."""

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

    def with_next(
        self,
        histories: EncodedHistories,
        encoded: EncodedRows,
        since_ms: int,
        kinds: np.ndarray,
        row_of_number: np.ndarray,
    ) -> "Sequences":
        """Add the items that came next, each event once however many sequences it is in.

        Args: since_ms: items of earlier events were learned on their own day; kinds: codes of events whose
        items are learned; row_of_number: [V], -1 for a number that is no single item's.
        """
        positions = histories.events[self.source]
        later = np.ones(positions.size, np.bool_)
        later[np.cumsum(self.counts) - self.counts] = False  # nothing comes before a sequence's first event
        event, events = np.flatnonzero(later), encoded.events
        at = positions[event]
        rows = row_of_number[events.items[at]]
        learned = (events.at[at] >= since_ms) & np.isin(events.kinds[at], kinds) & (rows >= 0)
        event, rows = event[learned], rows[learned]
        once = np.unique(at[learned], return_index=True)[1]
        if not once.size:
            return self
        item_rows, place = np.unique(rows[once], return_inverse=True)
        items = encoded.items.take(item_rows)
        return replace(
            self, followed=Followed(items=items, rows=item_rows, before=event[once] - 1, place=place)
        )

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
