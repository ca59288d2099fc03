"""Rows of (user, item, labels) without time, and what is known of either side as numbered columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.quality.quality_set import Measure
from recsys.metrics.columns import Lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What is known of users and items, as numbers into one table: each column has its own stretch."""

    user_ids: np.ndarray
    """int64 [users, C]; column 0 is the user."""
    item_ids: np.ndarray
    """int64 [items, C]; column 0 is the item."""
    num_ids: int

    @property
    def shape(self) -> tuple[int, int]:
        """Count users and items."""
        return len(self.user_ids), len(self.item_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Rows [N]: whose, of what, and a label per task."""

    user: np.ndarray
    """int64: row of `Sides.user_ids`."""
    item: np.ndarray
    labels: Mapping[str, np.ndarray]
    """float32 per task, NaN where not observed."""
    propensity: np.ndarray | None = None
    """In (0, 1): known probability that the row is observed; None: a debiased task estimates it."""

    def take(self, rows: np.ndarray) -> "Pairs":
        """Select rows by number or mask."""
        return Pairs(
            user=self.user[rows],
            item=self.item[rows],
            labels={task: label[rows] for task, label in self.labels.items()},
            propensity=None if self.propensity is None else self.propensity[rows],
        )

    def part(self, share: float, seed: int = 0) -> tuple["Pairs", "Pairs"]:
        """Part rows at random into those to train on and a share of them to choose on."""
        out = np.random.default_rng(seed).random(self.size) < share
        return self.take(~out), self.take(out)

    @property
    def size(self) -> int:
        """Count the rows."""
        return int(self.user.size)

    def measures(self, metrics: Mapping[str, str]) -> list[Measure]:
        """Measure heads' predictions of these rows. Args: metrics: head -> metric over rows."""
        return [
            Measure(head=h, metric=m, output=h, pooled=m, label=self.labels[h], user=self.user)
            for h, m in metrics.items()
        ]

    def measures_inside(self, metrics: Mapping[str, str]) -> list[Measure]:
        """Measure the order among each user's rows. Args: metrics: head -> metric inside lists."""
        of_user = Lists.unplaced(self.user)
        return [replace(one, lists=of_user) for one in self.measures(metrics)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Rows of disjoint parts and both sides."""

    sides: Sides
    train: Pairs
    validation: Pairs
    test: Pairs

    @property
    def before(self) -> Pairs:
        """Give all that is known before the test."""
        return joined([self.train, self.validation])


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Put parts with the same tasks behind each other; their propensities are left out."""
    return Pairs(
        user=np.concatenate([p.user for p in parts]),
        item=np.concatenate([p.item for p in parts]),
        labels={task: np.concatenate([p.labels[task] for p in parts]) for task in parts[0].labels},
    )


def number_sides(user_columns: Sequence[np.ndarray], item_columns: Sequence[np.ndarray]) -> Sides:
    """Number users, items and the columns of either. Args: columns [users] and [items], the ids first."""
    user_ids, start = numbered(user_columns, 0)
    item_ids, start = numbered(item_columns, start)
    return Sides(user_ids=user_ids, item_ids=item_ids, num_ids=start)


def numbered(columns: Sequence[np.ndarray], start: int) -> tuple[np.ndarray, int]:
    """Number each column's values, one stretch behind the other: int64 [N, C], and the next free number."""
    found = []
    for column in columns:
        values, codes = np.unique(column, return_inverse=True)
        found.append(codes + start)
        start += values.size
    return np.stack(found, axis=1), start


def numbered_lists(lists: list[list[str]], places: int, start: int) -> tuple[np.ndarray, int]:
    """Number up to so many values of each list: int64 [N, places], and the next free number.

    A value has one number in all places; `start` itself stands for "no further value".
    """
    kinds = {value: n for n, value in enumerate(sorted({v for of in lists for v in of}), start=start + 1)}
    cut = [[kinds[v] for v in of[:places]] for of in lists]
    padded = [of + [start] * (places - len(of)) for of in cut]
    return np.array(padded, dtype=np.int64).reshape(len(lists), places), start + len(kinds) + 1
