"""Ranking over the whole catalogue: lists of the best items but those met in training, measured per user.

Shapes: U users, I items, K places.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.quality.models.pair_data import Pairs, Sides, Split
from benchmarks.quality.models.pair_model import PairModel
from benchmarks.quality.quality_set import Measure
from recsys.metrics.ranking import match, ndcg_at_k, recall_at_k
from training.evaluation.lists import top_places

PLACES = 10
USERS_AT_ONCE = 100
METRICS = {f"recall@{PLACES}": recall_at_k, f"ndcg@{PLACES}": ndcg_at_k}
NDCG = f"ndcg@{PLACES}"

Scorer = Callable[[np.ndarray], np.ndarray]
"""Users [U] -> scores [U, I]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Held-out items of some users, and what may not be listed for them."""

    users: np.ndarray
    """int64 [U], rising."""
    held_out: Any
    """Sparse [users in all, I]: 1 where the item is to be found."""
    known: Any
    """The same of items met before: never listed."""

    def some(self, num: int) -> "Wanted":
        """Give the first users only."""
        return replace(self, users=self.users[:num])


Lists = Mapping[str, tuple[Wanted, Wanted]]
"""Head -> whose lists are evaluated on validation, and on the test."""


def wanted(held_out: Pairs, known: Pairs, shape: tuple[int, int], most: int) -> Wanted:
    """Take the users with anything held out, at most so many of them, drawn once for all rows and seeds.

    Args: shape: users, items.
    """
    users = np.unique(held_out.user)
    if users.size > most:
        users = np.sort(np.random.default_rng(0).choice(users, most, replace=False))
    return Wanted(users=users, held_out=positives(held_out, shape), known=positives(known, shape))


def list_metrics(score: Scorer, of: Wanted) -> dict[str, np.ndarray]:
    """Rank all items but the known ones; give the metrics of the first ten, per user [U]."""
    listed = []
    for start in range(0, of.users.size, USERS_AT_ONCE):
        users = of.users[start : start + USERS_AT_ONCE]
        listed.append(top_places(score(users), of.known[users].toarray() == 0, PLACES))
    relevant = of.held_out[of.users]
    relevant.sort_indices()
    found = match(np.concatenate(listed), relevant.indptr, relevant.indices)
    return {name: metric(found, PLACES) for name, metric in METRICS.items()}


def mean_ndcg(score: Scorer, of: Wanted) -> float:
    """Give the mean over users of NDCG."""
    return float(list_metrics(score, of)[NDCG].mean())


def list_outputs(head: str, score: Scorer, of: Wanted) -> dict[str, np.ndarray]:
    """Give a run's outputs of a head's lists: what `list_measures` reads."""
    return {f"{head} {metric}": values for metric, values in list_metrics(score, of).items()}


def list_measures(heads: Sequence[str]) -> list[Measure]:
    """Say what is measured of heads' lists."""
    return [
        Measure(head=head, metric=metric, output=f"{head} {metric}") for head in heads for metric in METRICS
    ]


def positives(pairs: Pairs, shape: tuple[int, int]) -> Any:
    """Make the 0/1 matrix of pairs, a repeated one counting once: sparse float32 [users, I]."""
    from scipy import sparse

    found = sparse.csr_matrix((np.ones(pairs.size, np.float32), (pairs.user, pairs.item)), shape)
    found.data[:] = 1.0
    return found


def model_scorer(model: PairModel, head: str) -> Scorer:
    """Score by a model's prediction of one head."""
    num = model.sides.shape[1]

    def score(users: np.ndarray) -> np.ndarray:
        pairs = Pairs(user=np.repeat(users, num), item=np.tile(np.arange(num), users.size), labels={})
        return model.predict(pairs)[head].reshape(users.size, num)

    return score


def kept_scorer(score: Scorer, lists: Lists) -> Scorer:
    """Score all lists' users once; a user may have lists of several heads."""
    users = np.unique(np.concatenate([of.users for parts in lists.values() for of in parts]))
    blocks = (users[start : start + USERS_AT_ONCE] for start in range(0, users.size, USERS_AT_ONCE))
    scores = np.concatenate([score(block).astype(np.float32) for block in blocks])
    return lambda asked: scores[np.searchsorted(users, asked)]


def split_per_user(pairs: Pairs, shares: tuple[float, float], seed: int = 0) -> tuple[Pairs, Pairs, Pairs]:
    """Part every user's pairs at random, one draw a seed: to train on, to choose on and to test.

    Args: shares: of the test and of validation.
    """
    place = _shuffled_places(pairs.user, np.random.default_rng(seed))
    count = np.bincount(pairs.user)[pairs.user]
    test = place < np.round(shares[0] * count)
    validation = ~test & (place < np.round((shares[0] + shares[1]) * count))
    train, known, held_out = (pairs.take(mask) for mask in (~test & ~validation, validation, test))
    return train, known, held_out


def split_with_lists(
    pairs: Pairs, sides: Sides, shares: tuple[float, float], heads: Sequence[str], most: tuple[int, int]
) -> tuple[Split, Lists]:
    """Split pairs per user and draw whose lists are evaluated; no list may name a training item.

    Args: shares: of the test and of validation; heads: whose positive labels are to be found; most: users
    whose lists are evaluated on the test and on validation.
    """
    train, validation, test = split_per_user(pairs, shares)

    def lists(part: Pairs, head: str, num: int) -> Wanted:
        return wanted(part.take(part.labels[head] > 0), train, sides.shape, num)

    split = Split(sides=sides, train=train, validation=validation, test=test)
    return split, {h: (lists(validation, h, most[1]), lists(test, h, most[0])) for h in heads}


def _shuffled_places(user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give each row [N] its place, from 0, in a random order of its user's rows."""
    order = np.lexsort((rng.random(user.size), user))
    counts = np.bincount(user)
    place = np.empty(user.size, np.int64)
    place[order] = np.arange(user.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return place
