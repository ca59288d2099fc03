"""Which rows of a day are in memory together, in which order, and which batch each row is in.

A day is cut into blocks of neighbouring rows. Of every K neighbouring blocks each of the K chunks gets one,
by a seeded draw: its rows are a sample of the whole day and not some hours of it, and reading it takes few,
long reads. Inside a chunk rows are shuffled one by one; a day of at most `chunk_rows` rows as a whole.

Where order inside lists is trained, rows of one list stay together: its rows are shuffled, long lists are
cut, and then lists are shuffled instead of rows.

Every chunk and every batch has a random state of its own, named by seed and place, so nothing before it need
be drawn again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple, Self

import numpy as np

from features.days import Days
from recsys.config import RunConfig
from training.data.pairs import nearest

BLOCKS = 64
"""Of a full chunk. With the default size, a block of int64 is 32 KiB, long enough for the disk."""

LIST_ROWS = 64
"""Longer lists are cut, so that a batch is of many users: a user's day in one context may have hundreds."""


class DaySize(NamedTuple):
    """A day and its number of examples."""

    day: date
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How days become chunks and batches."""

    chunk_rows: int
    batch_size: int
    seed: int

    @classmethod
    def from_config(cls, config: RunConfig) -> Self:
        """Take `[training]`'s values."""
        training = config.training
        return cls(chunk_rows=training.chunk_rows, batch_size=training.batch_size, seed=training.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some rows of a day that are read together."""

    bounds: np.ndarray
    """int64 [K, 2], ascending: rows bounds[k, 0] <= row < bounds[k, 1] of the day."""
    batch_size: int
    seed: int
    place: tuple[int, int, int]
    """(epoch, day, number in the day)."""

    @property
    def size(self) -> int:
        """Count the rows."""
        return int((self.bounds[:, 1] - self.bounds[:, 0]).sum())

    @property
    def num_batches(self) -> int:
        """Count the batches; they are near-equal in size."""
        return -(-self.size // self.batch_size)

    def batches(
        self, first: int, lists: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, np.random.Generator]]:
        """Give the rows of each batch, counted inside the chunk, and its random state.

        Args: first: the batch to begin with; lists: int64 [N], equal for rows that stay together.
        """
        random = _random(self.seed, *self.place)
        order = random.permutation(self.size)
        if lists is None:
            batches = np.array_split(order, self.num_batches)
        else:
            batches = self._by_list(order, lists, random)
        for number, rows in enumerate(batches):
            if number >= first:
                yield rows, _random(self.seed, *self.place, number)

    def _by_list(self, order: np.ndarray, lists: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
        """Cut rows, in the random order given, into as many batches as ever, about equal in size."""
        longest = max(1, min(LIST_ROWS, self.batch_size // 4))
        number = np.unique(lists, return_inverse=True)[1][order]
        by_list = np.argsort(number, kind="stable")
        starts = np.flatnonzero(np.diff(number[by_list], prepend=-1))
        inside = np.arange(order.size) - np.repeat(starts, np.diff(starts, append=order.size))
        starts = np.flatnonzero(inside % longest == 0)
        lengths = np.diff(starts, append=order.size)
        drawn = random.permutation(starts.size)
        starts, lengths = starts[drawn], lengths[drawn]
        ends = np.cumsum(lengths)
        rows = np.arange(order.size) + np.repeat(starts - ends + lengths, lengths)
        wanted = np.arange(1, self.num_batches) * order.size // self.num_batches
        return np.split(order[by_list[rows]], nearest(ends, wanted))


def sizes_of(days: Days, places: Iterable[int]) -> dict[int, DaySize]:
    """Give the sizes of some days by their place."""
    return {i: DaySize(days[i].day, days.num_impressions(i)) for i in places}


def cut_day(size: DaySize, epoch: int, cutting: Cutting) -> list[Chunk]:
    """List the chunks of one day, near-equal in size; a day without rows has none."""
    number, num_rows = size.day.toordinal(), size.num_rows
    num_chunks = -(-num_rows // cutting.chunk_rows)
    starts = np.arange(0, num_rows, cutting.chunk_rows // BLOCKS)
    stops = np.append(starts[1:], num_rows)[: starts.size]
    stretches = np.arange(0, starts.size, max(num_chunks, 1))[:, None]
    lots = _random(cutting.seed, epoch, number).random((stretches.size, num_chunks))
    drawn = stretches + np.argsort(lots, axis=1)
    return [
        Chunk(
            bounds=np.stack([bound[blocks[blocks < starts.size]] for bound in (starts, stops)], axis=1),
            batch_size=cutting.batch_size,
            seed=cutting.seed,
            place=(epoch, number, chunk),
        )
        for chunk, blocks in enumerate(drawn.T)
    ]


def count_steps(days: Iterable[DaySize], cutting: Cutting, epochs: int) -> int:
    """Count the batches of a training; lists that stay together do not change it."""
    return sum(
        chunk.num_batches for day in days for epoch in range(epochs) for chunk in cut_day(day, epoch, cutting)
    )


def _random(seed: int, *place: int) -> np.random.Generator:
    """Make the random state of a place. A spawn key, unlike a longer seed, tells (1,) from (1, 0)."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))
