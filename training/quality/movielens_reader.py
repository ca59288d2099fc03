"""MovieLens-1M by its five published folds: ratings, demographics, genres -> numbered columns; no time."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.errors import DataError

NUM_FOLDS = 5
NUM_GENRES = 3
"""Genres of a movie that are used, in the file's order; a missing one is a row of its own."""
_DEMOGRAPHICS = ("gender", "age", "occupation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """Rows [N]: whose, of what, how many stars."""

    user: np.ndarray
    item: np.ndarray
    stars: np.ndarray
    """float32, 1 to 5."""

    def take(self, rows: np.ndarray) -> "Ratings":
        """Select rows by number or mask."""
        return Ratings(user=self.user[rows], item=self.item[rows], stars=self.stars[rows])

    @property
    def size(self) -> int:
        """Count the rows."""
        return int(self.stars.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieLens:
    """The folds and what is known of users and movies."""

    folds: tuple[Ratings, ...]
    user_ids: np.ndarray
    """int64 [users, C]: each column in its own stretch of one table; column 0 is the user."""
    item_ids: np.ndarray
    """int64 [movies, C]; column 0 is the movie."""
    num_ids: int

    def but(self, fold: int) -> Ratings:
        """Give the ratings of all folds but one."""
        others = [part for i, part in enumerate(self.folds) if i != fold]
        return Ratings(
            user=np.concatenate([p.user for p in others]),
            item=np.concatenate([p.item for p in others]),
            stars=np.concatenate([p.stars for p in others]),
        )


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
    lists = [genres[i] for i in items.tolist()]
    kinds = {g: n for n, g in enumerate(sorted({g for of in lists for g in of}), start=1)}
    user_ids, start = _numbered(user_columns, 0)
    item_ids, start = _numbered([items.astype(str)], start)
    # All places of a genre share its number; 0 stands for "no further genre".
    places = [[start + kinds[g] for g in of[:NUM_GENRES]] for of in lists]
    padded = np.array([of + [start] * (NUM_GENRES - len(of)) for of in places])
    return MovieLens(
        folds=tuple(
            Ratings(
                user=np.searchsorted(users, f["user"].to_numpy()),
                item=np.searchsorted(items, f["item"].to_numpy()),
                stars=f["stars"].to_numpy(),
            )
            for f in folds
        ),
        user_ids=user_ids,
        item_ids=np.concatenate([item_ids, padded], axis=1),
        num_ids=start + len(kinds) + 1,
    )


def _numbered(columns: list[np.ndarray], start: int) -> tuple[np.ndarray, int]:
    """Number each column's values one stretch behind the other: [N, C], and the next free number."""
    found = []
    for column in columns:
        values, codes = np.unique(column, return_inverse=True)
        found.append(codes + start)
        start += values.size
    return np.stack(found, axis=1), start


def _fields(path: Path) -> list[list[str]]:
    return [line.split("::") for line in _unpacked(path).decode("latin-1").splitlines()]


def _unpacked(path: Path) -> bytes:
    if not path.exists():
        raise DataError(f"{path} is missing; --data is the folder of the set's published files")
    return gzip.decompress(path.read_bytes())
