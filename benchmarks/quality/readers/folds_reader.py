"""MovieLens-1M by its five published folds: ratings, demographics, genres -> numbered columns; no time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.quality.models.pair_data import Pairs, Sides, joined, number_sides, numbered_lists
from benchmarks.quality.readers.published_files import unpacked

NUM_FOLDS = 5
LIKED = 4.0
"""Stars from which a movie counts as liked."""
NUM_GENRES = 3
"""Genres of a movie that are used, in the file's order; a missing one is a row of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieLensFolds:
    """The folds and what is known of users and movies."""

    folds: tuple[Pairs, ...]
    sides: Sides
    movies: np.ndarray
    """int64 [items], rising: the published movie id of each of `Pairs.item`'s numbers."""

    def but(self, fold: int) -> Pairs:
        """Give the ratings of all folds but one."""
        return joined([part for i, part in enumerate(self.folds) if i != fold])


def rating_pairs(user: np.ndarray, item: np.ndarray, stars: np.ndarray) -> Pairs:
    """Give ratings the labels of both heads: `rating`, and `liked` for four stars or more."""
    stars = stars.astype(np.float32)
    return Pairs(user=user, item=item, labels={"rating": stars, "liked": (stars >= LIKED).astype(np.float32)})


def read_movielens_1m(folder: Path) -> MovieLensFolds:
    """Read folds, users and movies.

    Raises: DataError when a file is missing.
    """
    schema = {"user": pl.Int64, "item": pl.Int64, "stars": pl.Float32}
    folds = [
        pl.read_csv(unpacked(folder / f"fold{i}.csv"), has_header=False, schema=schema)
        for i in range(1, NUM_FOLDS + 1)
    ]
    everything = pl.concat(folds)
    users, items = (np.unique(everything[name].to_numpy()) for name in ("user", "item"))
    about = {int(f[0]): f[1:4] for f in _fields(folder / "users.dat")}
    genres = {int(f[0]): f[2].split("|") for f in _fields(folder / "movies.dat")}
    demographics = np.array([about[u] for u in users.tolist()])
    sides = number_sides([users.astype(str), *demographics.T], [items.astype(str)])
    kinds, num_ids = numbered_lists([genres[i] for i in items.tolist()], NUM_GENRES, sides.num_ids)
    parts = [
        rating_pairs(
            np.searchsorted(users, f["user"].to_numpy()),
            np.searchsorted(items, f["item"].to_numpy()),
            f["stars"].to_numpy(),
        )
        for f in folds
    ]
    item_ids = np.concatenate([sides.item_ids, kinds], axis=1)
    sides = Sides(user_ids=sides.user_ids, item_ids=item_ids, num_ids=num_ids)
    return MovieLensFolds(folds=tuple(parts), sides=sides, movies=items)


def _fields(path: Path) -> list[list[str]]:
    return [line.split("::") for line in unpacked(path).decode("latin-1").splitlines()]
