"""Leave-one-out lists: each user's held-out item among so many others; hits and NDCG, ties by expectation.

Shapes: U users, C candidates of a list; column 0 is the held-out item.
Source: He et al., WWW 2017 (NCF). A sampled metric: its values are far above those on the whole catalogue and
need not order systems alike (Krichene & Rendle, KDD 2020).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.quality.models.pair_data import Pairs, Sides, joined
from benchmarks.quality.readers.folds_reader import read_movielens_1m
from benchmarks.quality.readers.published_files import published, unpacked
from recsys.errors import DataError

NUM_NEGATIVES = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveOneOut:
    """Ratings to train on, and two lists per user."""

    train: Pairs
    sides: Sides
    validation: np.ndarray
    """int64 [U, C]: item numbers; column 0 was taken out of the training ratings."""
    held: Pairs
    """The validation items' ratings."""
    test: np.ndarray
    """int64 [U, C]: the published lists."""
    test_stars: np.ndarray
    """float32 [U]: of the test items."""

    @property
    def but_test(self) -> Pairs:
        """Give all ratings but the published test ones, for models that are refitted once chosen."""
        return joined([self.train, self.held])


def read_leave_one_out(folder: Path, seed: int = 0) -> LeaveOneOut:
    """Read the folds as one log and the published lists; hold one more rating per user out.

    Raises: DataError when a file is missing or a test item is not among its user's ratings.
    """
    data = read_movielens_1m(folder)
    ratings = joined(data.folds)
    test = _published(folder, data.movies)
    num_items = data.sides.shape[1]
    out = np.isin(ratings.user * num_items + ratings.item, np.arange(len(test)) * num_items + test[:, 0])
    if out.sum() != len(test):
        raise DataError(f"{folder}: {len(test) - out.sum()} test items are not among their user's ratings")
    last = ratings.take(out)
    rest = ratings.take(~out)
    rng = np.random.default_rng(seed)
    chosen = one_of_each(rest.user, rng)
    held, train = rest.take(chosen), rest.take(np.setdiff1d(np.arange(rest.size), chosen))
    drawn = negatives(rest, num_items, rng)
    return LeaveOneOut(
        train=train,
        sides=data.sides,
        validation=np.concatenate([held.item[:, None], drawn], axis=1),
        held=held,
        test=test,
        test_stars=last.labels["rating"][np.argsort(last.user)],
    )


def one_of_each(user: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw one row of each user: rows [U], in the users' order."""
    order = rng.permutation(user.size)
    _, first = np.unique(user[order], return_index=True)
    rows: np.ndarray = order[first]
    return rows


def negatives(known: Pairs, num_items: int, rng: np.random.Generator) -> np.ndarray:
    """Draw, per user of 0, 1, …, distinct items without a known rating: int64 [U, NUM_NEGATIVES].

    Raises: DataError when a user has rated almost everything.
    """
    seen = np.zeros((int(known.user.max()) + 1, num_items), bool)
    seen[known.user, known.item] = True
    if num_items - seen.sum(axis=1).max() < NUM_NEGATIVES:
        raise DataError(f"a user has fewer than {NUM_NEGATIVES} unrated items of {num_items}")
    keys = rng.random(seen.shape)
    keys[seen] = 2.0
    drawn: np.ndarray = np.argpartition(keys, NUM_NEGATIVES - 1, axis=1)[:, :NUM_NEGATIVES]
    return drawn


def places(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give how many of a list's others stand above the held-out item, and how many level with it: [U]."""
    own = scores[:, :1]
    return (scores[:, 1:] > own).sum(axis=1), (scores[:, 1:] == own).sum(axis=1)


def hits(scores: np.ndarray, k: int = 10) -> np.ndarray:
    """Give each user's chance [U] that the held-out item is among the first k, ties broken at random."""
    above, level = places(scores)
    found: np.ndarray = ((k - above) / (level + 1)).clip(0, 1)
    return found


def gains(scores: np.ndarray, k: int = 10) -> np.ndarray:
    """Give each user's mean of 1 / log2(place + 1) [U] within the first k, ties broken at random."""
    above, level = places(scores)
    place = np.arange(scores.shape[1])
    total = np.concatenate([[0.0], np.cumsum(np.where(place < k, 1 / np.log2(place + 2), 0.0))])
    found: np.ndarray = (total[above + level + 1] - total[above]) / (level + 1)
    return found


def _published(folder: Path, movies: np.ndarray) -> np.ndarray:
    """Read the published lists by movie: int64 [U, C] item numbers. Users stand in the order of their ids."""
    known = pl.read_csv(published(folder / "ncf_item_map.csv"))
    movie = np.zeros(int(known["ncf_item"].max()) + 1, np.int64)  # type: ignore[arg-type]
    movie[known["ncf_item"].to_numpy()] = known["movie_id"].to_numpy()
    own = _table(folder / "ncf.ml-1m.test.rating")[:, :2]
    others = _table(folder / "ncf.ml-1m.test.negative", skip=1)
    lists = np.concatenate([own[np.argsort(own[:, 0]), 1:], others[np.argsort(own[:, 0])]], axis=1)
    found: np.ndarray = np.searchsorted(movies, movie[lists])
    return found


def _table(path: Path, skip: int = 0) -> np.ndarray:
    """Read integers [N, C] between tabs, leaving the first columns out."""
    lines = unpacked(path).decode().splitlines()
    return np.array([[int(v) for v in line.split("\t")[skip:]] for line in lines])
