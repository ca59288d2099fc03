"""MovieLens-1M by its five published folds: ratings, demographics, genres -> numbered columns; no time."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.quality.models.pairs import Pairs, Sides, joined, numbered, numbered_lists
from recsys.errors import DataError

NUM_FOLDS = 5
LIKED = 4.0
"""Stars from which a movie counts as liked."""
NUM_GENRES = 3
"""Genres of a movie that are used, in the file's order; a missing one is a row of its own."""
_DEMOGRAPHICS = ("gender", "age", "occupation")


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieLens:
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


def read_movielens(folder: Path) -> MovieLens:
    """Read folds, users and movies.

    Raises: DataError when a file is missing.
    """
    folds = [
        pl.read_csv(
            _unpacked(folder / f"fold{i}.csv.gz"),
            has_header=False,
            new_columns=["user", "item", "stars"],
            schema_overrides=[pl.Int64, pl.Int64, pl.Float32],
        )
        for i in range(1, NUM_FOLDS + 1)
    ]
    everything = pl.concat(folds)
    users, items = (np.unique(everything[name].to_numpy()) for name in ("user", "item"))
    known_users = {int(f[0]): f[1:4] for f in _fields(folder / "users.dat.gz")}
    genres = {int(f[0]): f[2].split("|") for f in _fields(folder / "movies.dat.gz")}
    user_columns = [
        users.astype(str),
        *[np.array([known_users[u][j] for u in users.tolist()]) for j in range(len(_DEMOGRAPHICS))],
    ]
    user_ids, start = numbered(user_columns, 0)
    item_ids, start = numbered([items.astype(str)], start)
    kinds, num_ids = numbered_lists([genres[i] for i in items.tolist()], NUM_GENRES, start)
    sides = Sides(user_ids=user_ids, item_ids=np.concatenate([item_ids, kinds], axis=1), num_ids=num_ids)
    parts = [
        rating_pairs(
            np.searchsorted(users, f["user"].to_numpy()),
            np.searchsorted(items, f["item"].to_numpy()),
            f["stars"].to_numpy(),
        )
        for f in folds
    ]
    return MovieLens(folds=tuple(parts), sides=sides, movies=items)


def _fields(path: Path) -> list[list[str]]:
    return [line.split("::") for line in _unpacked(path).decode("latin-1").splitlines()]


def _unpacked(path: Path) -> bytes:
    if not path.exists():
        raise DataError(f"{path} is missing; --data is the folder of the set's published files")
    return gzip.decompress(path.read_bytes())
