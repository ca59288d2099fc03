"""Ranking over the whole catalogue: lists of the best items but those met in training, evaluated per user.

Shapes: U users, I items, K places.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.quality.models.pairs import PairModel, Pairs, Sides
from benchmarks.quality.report import Figure, Kept, over_rows
from recsys.metrics.ranking import match, ndcg_at_k, recall_at_k
from training.evaluation.lists import top_places

PLACES = 10
USERS_AT_ONCE = 100

Scorer = Callable[[np.ndarray], np.ndarray]
"""Users [U] -> scores [U, I]."""
ListsOfHeads = Mapping[str, Mapping[str, np.ndarray]]
"""Head -> metric of its lists -> users' values [U]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Held-out items of some users, and what may not be listed for them."""

    users: np.ndarray
    """int64 [U], rising."""
    held_out: Any
    """Sparse [users in all, I]: 1 where the item is to be found."""
    known: Any
    """The same of items met before: never listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A split per user, and whose lists are evaluated on it."""

    sides: Sides
    train: Pairs
    validation: Pairs
    test: Pairs
    known_lists: Mapping[str, Wanted]
    """Per ranked head, of the validation pairs."""
    lists: Mapping[str, Wanted]


def wanted(held_out: Pairs, known: Pairs, shape: tuple[int, int], most: int) -> Wanted:
    """Take the users with anything held out, at most so many of them, drawn once for all rows and seeds.

    Args: shape: users, items.
    """
    users = np.unique(held_out.user)
    if users.size > most:
        users = np.sort(np.random.default_rng(0).choice(users, most, replace=False))
    return Wanted(users=users, held_out=positives(held_out, shape), known=positives(known, shape))


def list_metrics(score: Scorer, of: Wanted) -> dict[str, np.ndarray]:
    """Rank all items but the known ones: `recall` and `ndcg` at 10, per user [U]."""
    listed = []
    for start in range(0, of.users.size, USERS_AT_ONCE):
        users = of.users[start : start + USERS_AT_ONCE]
        listed.append(top_places(score(users), of.known[users].toarray() == 0, PLACES))
    relevant = of.held_out[of.users]
    relevant.sort_indices()
    found = match(np.concatenate(listed), relevant.indptr, relevant.indices)
    return {"recall": recall_at_k(found, PLACES), "ndcg": ndcg_at_k(found, PLACES)}


def list_figures(
    validation: Sequence[Mapping[str, np.ndarray]], test: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, Figure]:
    """Average runs' metrics of lists over users and runs; the interval draws users."""
    found = {}
    for metric in test[0]:
        found[f"{metric}@{PLACES}"] = user_figure([r[metric] for r in test], [r[metric] for r in validation])
    return found


def user_figure(values: Sequence[np.ndarray], validation: Sequence[np.ndarray]) -> Figure:
    """Average users' own values over users and runs; the interval draws users. Args: [S][U]."""
    return over_rows(_mean, np.zeros(values[0].size), values, [float(known.mean()) for known in validation])


def kept_lists(head: str, test: Mapping[str, Sequence[Mapping[str, np.ndarray]]]) -> list[Kept]:
    """Keep a head's metrics of the test lists, by row and run, to compare rows user by user."""
    metrics = list(next(iter(test.values()))[0]) if test else []
    return [
        Kept(
            head=head,
            metric=f"{metric}@{PLACES}",
            predictions={row: [run[metric] for run in runs] for row, runs in test.items()},
        )
        for metric in metrics
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


def shuffled_places(user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give each row [N] its place, from 0, in a random order of its user's rows."""
    order = np.lexsort((rng.random(user.size), user))
    counts = np.bincount(user)
    place = np.empty(user.size, np.int64)
    place[order] = np.arange(user.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return place


def parts_of(
    pairs: Pairs, sides: Sides, shares: tuple[float, float], heads: Sequence[str], most: tuple[int, int]
) -> Parts:
    """Split pairs per user and draw whose lists are evaluated; no list may name a training item.

    Args: shares: of the test and of validation; heads: whose positive labels are to be found; most: users
    whose lists are evaluated on the test and on validation.
    """
    train, validation, test = split_per_user(pairs, shares)

    def lists(part: Pairs, num: int) -> dict[str, Wanted]:
        return {h: wanted(part.take(part.labels[h] > 0), train, sides.shape, num) for h in heads}

    return Parts(
        sides=sides,
        train=train,
        validation=validation,
        test=test,
        known_lists=lists(validation, most[1]),
        lists=lists(test, most[0]),
    )


def split_per_user(pairs: Pairs, shares: tuple[float, float], seed: int = 0) -> tuple[Pairs, Pairs, Pairs]:
    """Part every user's pairs at random, one draw a seed: to learn from, to choose on and to test.

    Args: shares: of the test and of validation.
    """
    place = shuffled_places(pairs.user, np.random.default_rng(seed))
    count = np.bincount(pairs.user)[pairs.user]
    test = place < np.round(shares[0] * count)
    validation = ~test & (place < np.round((shares[0] + shares[1]) * count))
    train, known, held_out = (pairs.take(mask) for mask in (~test & ~validation, validation, test))
    return train, known, held_out


def _mean(_label: np.ndarray, value: np.ndarray, weight: np.ndarray) -> float:
    return float(np.average(value, weights=weight))
