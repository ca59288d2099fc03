"""Negatives of implicit feedback: pairs of a training row's user and any item, drawn anew every epoch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.quality.models.pair_data import Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Negatives:
    """Draws of so many pairs per training row; a draw that is a known pair is observed on no head."""

    train: Pairs
    num_items: int
    per_row: int
    labels: Mapping[str, float]
    """Of a drawn pair, per task; NaN where it says nothing."""
    known: np.ndarray
    """int64, rising: user · num_items + item of pairs that are no negatives."""

    def __call__(self, rng: np.random.Generator) -> Pairs:
        """Draw one epoch's: per_row · train.size rows, users as often as they have training rows."""
        user = np.repeat(self.train.user, self.per_row)
        item = rng.integers(self.num_items, size=user.size)
        code = user * self.num_items + item
        place = np.searchsorted(self.known, code).clip(max=self.known.size - 1)
        positive = self.known[place] == code
        labels = {t: np.where(positive, np.nan, v).astype(np.float32) for t, v in self.labels.items()}
        return Pairs(user=user, item=item, labels=labels)


def negatives_of(train: Pairs, num_items: int, per_row: int, labels: Mapping[str, float]) -> Negatives:
    """Draw against training rows: a held-out pair may be drawn too, as it would be in production."""
    known = np.unique(train.user * num_items + train.item)
    return Negatives(train=train, num_items=num_items, per_row=per_row, labels=labels, known=known)
