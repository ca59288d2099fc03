"""A whole day to be scored, in memory where it is small, else in files: the same batches, the same bits."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from features.days import Days
from features.definitions import is_lifetime
from features.encode import Encoder
from features.kinds.number import Number
from recsys.batch import Batch
from recsys.item_terms import ItemNumbers
from recsys.scratch import scratch_folder
from recsys.tasks import TaskSpec
from training.data.batcher import Batcher
from training.data.encoded_files import EncodedDays
from training.data.encoded_rows import encode_day
from training.data.stream import EncodedDay

PIECE_ROWS = 262_144
"""Rows of a day that are in memory at once; a day of fewer is not written into files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRows:
    """What measuring reads of a day's rows [N], beside what a model says of them."""

    labels: Mapping[str, np.ndarray]
    """Task -> float32 [N]; NaN = not known."""
    weight: np.ndarray
    shown_at: np.ndarray
    user_key: np.ndarray
    items: ItemNumbers
    """Lifetime rates and means of each row's item, and of what it is grouped by."""

    @property
    def size(self) -> int:
        """Count the rows."""
        return self.weight.size

    @classmethod
    def of(cls, day: EncodedDay, encoder: Encoder) -> Self:
        """Read them of a day that the encoder has encoded, into memory."""
        return cls(
            labels={task: np.array(label) for task, label in day.labels.items()},
            weight=np.array(day.weight),
            shown_at=np.array(day.shown_at),
            user_key=np.array(day.user_key),
            items=_item_numbers(day, encoder),
        )


def _item_numbers(day: EncodedDay, encoder: Encoder) -> ItemNumbers:
    """Take the items' lifetime rates and means: counts grow with the log, so a weight of theirs soon errs."""
    column, first = {}, 0
    for feature in encoder.features.numbers_of("item"):
        if isinstance(feature, Number) and feature.transform in ("rate", "mean") and is_lifetime(feature):
            column[feature.name] = first
        first += feature.width
    return ItemNumbers(
        names=tuple(column),
        values_IF=np.array(day.items.numbers[:, list(column.values())]),
        row_N=np.array(day.item_row, np.int64),
    )


@contextmanager
def opened_day(
    encoder: Encoder, days: Days, i: int, tasks: Sequence[TaskSpec], folder: Path | None
) -> Iterator[EncodedDay]:
    """Encode day i, a piece at a time where it is large.

    Args: folder: where a large day's arrays lie until the block ends; default: beside its snapshot.
    Raises: DataError on a full disk.
    """
    if days.num_impressions(i) <= PIECE_ROWS:
        yield encode_day(encoder, days, i, tasks)
        return
    with scratch_folder(folder or days[i].path.parent, "day") as own:
        files = EncodedDays(
            folder=own,
            encoder=encoder,
            days=days,
            tasks=tasks,
            hidden=lambda _: (),
            piece_rows=PIECE_ROWS,
        )
        yield files(i)


def scoring_batches(batcher: Batcher, day: EncodedDay) -> Iterator[Batch]:
    """Cut a day into near-equal batches, in order; a piece is read at a time.

    What is in a batch does not depend on the pieces: products of another size round otherwise.
    """
    number = -(-day.size // batcher.settings.batch_size)
    if not number:
        return
    cuts = np.cumsum([0, *(rows.size for rows in np.array_split(np.empty(day.size, np.bool_), number))])
    at_once = max(1, PIECE_ROWS // batcher.settings.batch_size)
    rng = np.random.default_rng(0)
    for k in range(0, number, at_once):
        own = cuts[k : k + at_once + 1]
        piece = day.read(np.array([[own[0], own[-1]]]))
        for start, stop in zip(own[:-1] - own[0], own[1:] - own[0], strict=True):
            yield batcher.batch(piece, np.arange(start, stop), rng)
