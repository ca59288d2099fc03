"""MovieLens sets with time: what of users and movies becomes a column, and the cut by time.

Users and movies without training ratings are strangers: their own id is unknown, the rest of them is not. A
share of the training rows is shown with unknown ids, so that the rows of unknown ids are trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.quality.models.pair_data import Pairs, Sides, Split, numbered, numbered_lists
from benchmarks.quality.readers.folds_reader import rating_pairs
from features.sources.movielens_files import MovieLens, read_movielens

NUM_GENRES = 4
YEARS = 10
"""Movies and users are known by the decade of their year or age."""
TRAIN_SHARE = 0.8
VALIDATION_SHARE = 0.1
"""Of the training part: its last ratings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRatings:
    """All ratings in the order of their time, and both sides."""

    pairs: Pairs
    sides: Sides
    """Of strangers too: row `users + u` is user u without an id of its own, and likewise for movies."""
    num_users: int
    num_items: int

    @property
    def shape(self) -> tuple[int, int]:
        """Count users and movies."""
        return self.num_users, self.num_items

    @property
    def known_sides(self) -> Sides:
        """Give both sides without strangers."""
        return replace(
            self.sides,
            user_ids=self.sides.user_ids[: self.num_users],
            item_ids=self.sides.item_ids[: self.num_items],
        )

    def split(self) -> Split:
        """Cut by time."""
        order = np.arange(self.pairs.size)
        end = round(TRAIN_SHARE * order.size)
        start = round((1 - VALIDATION_SHARE) * end)
        bounds = ((0, start), (start, end), (end, order.size))
        train, validation, test = (self.pairs.take(order[a:b]) for a, b in bounds)
        return Split(sides=self.sides, train=train, validation=validation, test=test)

    def seen(self, rows: Pairs, train: Pairs) -> Pairs:
        """Make strangers of whom and what training rows do not have."""
        user, item = np.isin(rows.user, train.user), np.isin(rows.item, train.item)
        return self._strange(rows, ~user, ~item)

    def with_strangers(self, train: Pairs, share: float, seed: int) -> Pairs:
        """Make strangers of a share of the rows' users and, drawn by itself, of their movies."""
        rng = np.random.default_rng(seed)
        return self._strange(train, *(rng.random((2, train.size)) < share))

    def _strange(self, rows: Pairs, user: np.ndarray, item: np.ndarray) -> Pairs:
        return replace(rows, user=rows.user + self.num_users * user, item=rows.item + self.num_items * item)


def read_timed(folder: Path) -> TimedRatings:
    """Read ml-100k or ml-latest-small in their published layouts.

    Raises: DataError when the folder has none of them.
    """
    data = read_movielens(folder)
    ratings = data.ratings.sort("seconds", "user_id", "item_id")
    users, items = (ratings[name].unique().sort() for name in ("user_id", "item_id"))
    user_ids, start = _with_unknown(users, _user_columns(data, users), 0)
    lists = items.to_frame().join(data.items, on="item_id", how="left", maintain_order="left")
    decade = (lists["year"].fill_null(0) // YEARS).to_numpy()
    item_ids, start = _with_unknown(items, [decade], start)
    genres, num_ids = numbered_lists(lists["genres"].fill_null([]).to_list(), NUM_GENRES, start)
    item_ids = np.concatenate([item_ids, np.concatenate([genres, genres])], axis=1)
    return TimedRatings(
        pairs=rating_pairs(
            users.search_sorted(ratings["user_id"]).to_numpy().astype(np.int64),
            items.search_sorted(ratings["item_id"]).to_numpy().astype(np.int64),
            ratings["stars"].to_numpy(),
        ),
        sides=Sides(user_ids=user_ids, item_ids=item_ids, num_ids=num_ids),
        num_users=users.len(),
        num_items=items.len(),
    )


def _user_columns(data: MovieLens, users: pl.Series) -> list[np.ndarray]:
    if data.users is None:
        return []
    known = users.to_frame().join(data.users, on="user_id", how="left", maintain_order="left")
    age = (known["attribute_age"].fill_null(0) // YEARS).to_numpy()
    return [age, *(known[f"attribute_{n}"].fill_null("").to_numpy() for n in ("gender", "occupation"))]


def _with_unknown(names: pl.Series, columns: Sequence[np.ndarray], start: int) -> tuple[np.ndarray, int]:
    """Number names and their columns [N, C], and once more with the id unknown: [2 N, C]."""
    own = np.arange(names.len()) + start
    others, end = numbered([np.zeros(names.len()), *columns], start + names.len())
    rest = others[:, 1:]
    ids = np.concatenate([np.c_[own, rest], np.c_[np.full(names.len(), start + names.len()), rest]])
    return ids, end
