"""BatchStream: the batches of a training, from any step on, whole or one rank's slice of each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from features.encode import Encoded
from recsys.batch import Batch
from training.data.batcher import Batcher
from training.data.chunks import Chunk, Cutting, DaySize, cut_day
from training.data.encoded_rows import EncodedRows


class EncodedDay(Protocol):
    """One day's examples, in memory or in files."""

    @property
    def size(self) -> int:
        """Count the examples."""

    @property
    def labels(self) -> Mapping[str, np.ndarray]:
        """Give each task's labels [N]; NaN = not known."""

    @property
    def weight(self) -> np.ndarray:
        """Give how many impressions of the real stream each example [N] stands for."""

    @property
    def shown_at(self) -> np.ndarray:
        """Give when each example [N] was shown, ms."""

    @property
    def user_key(self) -> np.ndarray:
        """Give a number of each example's user [N]."""

    @property
    def items(self) -> Encoded:
        """Give the items, encoded, and one that nothing is known of."""

    @property
    def item_row(self) -> np.ndarray:
        """Give each example's [N] row of them."""

    def read(self, bounds: np.ndarray) -> EncodedRows:
        """Give the examples of some ascending ranges [K, 2] of rows, in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStream:
    """Days in order, epoch after epoch; chunk after chunk in a day; every row once an epoch.

    A step is one batch of all ranks. The steps are known before any day is read, and the same from wherever
    they begin, on however many ranks.
    """

    days: Mapping[int, DaySize]
    """By place, in the order of training."""
    read_day: Callable[[int], EncodedDay]
    batcher: Batcher
    cutting: Cutting
    epochs: int = 1
    popularity: np.ndarray | None = None
    """Share of the positives by item number, where retrieval is trained."""

    def batches(self, first_step: int = 0) -> Iterator[Batch]:
        """Give the batches from a step on; what comes before it is neither read nor drawn."""
        passed = first_step
        for place, chunks in self._plan():
            day: EncodedDay | None = None
            for chunk in chunks:
                if passed >= chunk.num_batches:
                    passed -= chunk.num_batches
                    continue
                day = self._open(place) if day is None else day
                yield from self._cut(day.read(chunk.bounds), chunk, passed)
                passed = 0

    def _plan(self) -> Iterator[tuple[int, Sequence[Chunk]]]:
        for epoch in range(self.epochs):
            for place, size in self.days.items():
                yield place, cut_day(size, epoch, self.cutting)

    def _open(self, place: int) -> EncodedDay:
        day, size = self.read_day(place), self.days[place]
        assert day.size == size.num_rows, (size, day.size)
        return day

    def _cut(self, rows: EncodedRows, chunk: Chunk, first: int) -> Iterator[Batch]:
        share = None if self.popularity is None else self.popularity[rows.items.ids[:, 0]]
        lists = rows.lists if self.batcher.settings.list_tasks else None
        if lists is None and self.batcher.settings.sequences:
            lists = rows.user_key  # a user's rows read one sequence: one pass of it a day
        for whole, rng in chunk.batches(first, lists):
            yield self.batcher.batch(rows, whole, rng, share)
