"""The last item of each user among the whole catalogue: the split, the ranks, the metrics.

The last item is the test, the one before validates. What a row is fitted on and what it may see of a user is
everything earlier. A user's own earlier items are never listed, so an item that comes again counts as missed.

Shapes: U users, V users with an item to find, I items, K places.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.quality.quality_set import Measure
from benchmarks.quality.readers.sequence_reader import Sequences
from recsys.item_item.histories import Histories
from recsys.metrics import ranking
from training.evaluation.lists import top_places

HEAD, PLACES = "next_item", 10
CHOSEN_BY = (f"recall_at_{PLACES}", f"ndcg_at_{PLACES}")
"""What choices look at, on validation: their sum."""
METRICS = (*CHOSEN_BY, "mrr", f"coverage_at_{PLACES}", f"novelty_at_{PLACES}")
LEAST_EVENTS = 3
"""A user with fewer is trained on and not tested."""
_CELLS_AT_ONCE = 12_000_000

Scorer = Callable[[np.ndarray], np.ndarray]
"""Users [V] of a part, by number -> scores [V, I] from their histories in that part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is known, and the next item of some users."""

    known: Histories
    """Of all users [U], oldest first."""
    users: np.ndarray
    """int64 [V], rising."""
    wanted: np.ndarray
    """int64 [V]: the item to find."""
    num_items: int
    attributes: Any
    """Sparse [I, A], or None."""

    @property
    def met(self) -> Any:
        """Give who has met what: sparse CSR float32 [U, I], 1 each."""
        return self.known.matrix(self.num_items)

    def of_items(self, most: int) -> "Part":
        """Leave the items out that are not among the most frequent ones, and users with too little left."""
        if self.num_items <= most:
            return self
        counts = np.bincount(self.known.items, minlength=self.num_items)
        kept = np.sort(np.argsort(-counts, kind="stable")[:most])
        row_of = np.full(self.num_items, -1)
        row_of[kept] = np.arange(most)
        there = row_of[self.known.items] >= 0
        known = Histories.of(
            self.known.users[there], row_of[self.known.items[there]], num_users=self.known.num_users
        )
        wanted = row_of[self.wanted]
        tested = (wanted >= 0) & (known.counts[self.users] >= LEAST_EVENTS - 2)
        return Part(
            known=known,
            users=self.users[tested],
            wanted=wanted[tested],
            num_items=most,
            attributes=None if self.attributes is None else self.attributes[kept],
        )

    def of_users(self, most: int) -> "Part":
        """Test at most so many users, drawn once."""
        if self.users.size <= most:
            return self
        rows = np.sort(np.random.default_rng(0).choice(self.users.size, most, replace=False))
        return Part(
            known=self.known,
            users=self.users[rows],
            wanted=self.wanted[rows],
            num_items=self.num_items,
            attributes=self.attributes,
        )


def leave_last_out(of: Sequences) -> tuple[Part, Part]:
    """Give the validation part, without test items, and the test part, which knows the validation items."""
    counts = np.bincount(of.users, minlength=of.num_users)
    left = np.repeat(np.cumsum(counts), counts) - 1 - np.arange(of.users.size)
    tested = counts[of.users] >= LEAST_EVENTS

    def part(place: int) -> Part:
        known, wanted = (left > place) | ~tested, (left == place) & tested
        return Part(
            known=Histories.of(of.users[known], of.items[known], num_users=of.num_users),
            users=of.users[wanted],
            wanted=of.items[wanted],
            num_items=of.num_items,
            attributes=of.attributes,
        )

    return part(1), part(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Where each wanted item stands, and the first places."""

    ranks: np.ndarray
    """int64 [V], from 0; -1: the item is never listed."""
    first: np.ndarray
    """int64 [V, K], padded with -1."""

    @property
    def worth(self) -> float:
        """Give what a choice goes by."""
        values = self.values()
        return float(sum(values[name].mean() for name in CHOSEN_BY))

    def values(self) -> dict[str, np.ndarray]:
        """Give recall, NDCG and reciprocal rank of each user [V]."""
        found = (self.ranks >= 0) & (self.ranks < PLACES)
        gain = 1 / np.log2(self.ranks + 2.0, where=self.ranks >= 0, out=np.ones(self.ranks.size))
        inverse = np.where(self.ranks >= 0, 1 / (np.maximum(self.ranks, 0) + 1.0), 0.0)
        return {
            f"recall_at_{PLACES}": found.astype(np.float64),
            f"ndcg_at_{PLACES}": np.where(found, gain, 0.0),
            "mrr": inverse,
        }

    def outputs(self, part: Part) -> dict[str, np.ndarray]:
        """Give a run's outputs: each user's values, the lists' novelty and, one number, their coverage."""
        popularity = np.bincount(part.known.items, minlength=part.num_items)
        return self.values() | {
            f"coverage_at_{PLACES}": np.array([ranking.coverage(self.first, part.num_items)]),
            f"novelty_at_{PLACES}": ranking.novelty(self.first, popularity),
        }


def rank(score: Scorer, part: Part) -> Ranked:
    """Rank the catalogue without each user's own items; of equal scores the first row stands first."""
    met, ranks, first = part.met, [], []
    at_once = max(1, _CELLS_AT_ONCE // part.num_items)
    for start in range(0, part.users.size, at_once):
        users, wanted = part.users[start : start + at_once], part.wanted[start : start + at_once]
        scores = np.array(score(users), np.float32)
        hidden = met[users].toarray() > 0
        scores[hidden] = -np.inf
        rows = np.arange(users.size)
        own = scores[rows, wanted][:, None]
        level = (scores == own) & (np.arange(part.num_items) < wanted[:, None])
        place = (scores > own).sum(axis=1) + level.sum(axis=1)
        ranks.append(np.where(hidden[rows, wanted], -1, place))
        first.append(top_places(scores, ~hidden, PLACES))
    if not ranks:
        return Ranked(ranks=np.zeros(0, np.int64), first=np.zeros((0, PLACES), np.int64))
    return Ranked(ranks=np.concatenate(ranks), first=np.concatenate(first))


def measures(names: tuple[str, ...] = METRICS) -> list[Measure]:
    """Say what is measured; coverage is of all lists together, so no interval of users goes with it."""
    return [
        Measure(
            head=HEAD, metric=name, output=name, repeats="places" if name.startswith("coverage") else "users"
        )
        for name in names
    ]
