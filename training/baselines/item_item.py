"""Item-item weights as baselines: what a user did before, times what goes with what.

    item_knn      shrunk cosines of items' users
    ease          EASE, every item of a user's past counting 1
    ease_recency  the same weights; an item counts half as much for every 28 days since it was last taken

Shapes: U users, I items, N pairs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from features.days import Days
from recsys.item_item.ease import build_ease
from recsys.item_item.histories import MOST_EVENTS
from recsys.item_item.knn import build_item_knn
from recsys.item_item.neighbours import ItemItem
from recsys.item_item.pair_counts import gram_of
from recsys.item_item.recency import HalfLife
from recsys.tasks import TaskSpec
from training.baselines.own_history import HALF_LIFE_DAYS, events_before

NEIGHBOURS = 100
"""Similar items that item-kNN keeps of an item."""
SHRINKAGE = 10.0
PENALTY = 100.0
MOST_EASE_ITEMS = 10_000
"""The most frequent items, among which EASE is fitted in half a minute; all others score 0."""

Build = Callable[[Any], ItemItem]
"""Users' items, sparse 0/1 [U, I] -> weights."""


def build_knn(matrix: Any) -> ItemItem:
    """Build item-kNN's weights."""
    return build_item_knn(matrix, shrinkage=SHRINKAGE, most=NEIGHBOURS)


def build_ease_of(matrix: Any) -> ItemItem:
    """Build EASE's weights, 200 an item."""
    return build_ease(gram_of(matrix), PENALTY)


class ItemItemScores:
    """Weights between the items of some events, and what each user did with them."""

    def __init__(self, events: pl.DataFrame, build: Build, most_items: int | None = None) -> None:
        """Fit on events: user_id, item_id and, where recency is to count, age_days; a pair twice counts once.

        Args: most_items: keep the most frequent items alone; ties by id.
        """
        if "age_days" not in events.columns:
            events = events.with_columns(age_days=pl.lit(0.0))
        pairs = events.group_by("user_id", "item_id").agg(pl.col("age_days").min())
        if most_items is not None:
            counts = pairs.group_by("item_id").len().sort(["len", "item_id"], descending=[True, False])
            pairs = pairs.join(counts.head(most_items), on="item_id", how="semi")
        pairs = pairs.sort("user_id", "age_days", "item_id")
        self.users, self.items = _numbered(pairs["user_id"]), _numbered(pairs["item_id"])
        self._cells = (_codes(pairs["user_id"], self.users), _codes(pairs["item_id"], self.items))
        self._ages = pairs["age_days"].to_numpy()
        self.history = self._matrix(np.ones(pairs.height, np.float32))
        self.weights: Any = build(self.history).matrix()

    def with_half_life(self, days: float) -> "ItemItemScores":
        """Give the same weights for histories whose older events count less, the latest 200 a user."""
        other = object.__new__(ItemItemScores)
        other.__dict__ |= self.__dict__
        user = self._cells[0]
        place = np.arange(user.size) - np.searchsorted(user, user)
        kept = np.where(place < MOST_EVENTS, HalfLife(days).of_ages(self._ages), 0.0)
        other.history = self._matrix(kept.astype(np.float32))
        return other

    def of_pairs(self, users: pl.Series, items: pl.Series) -> np.ndarray:
        """Score (user, item) pairs [N]; 0 where the user or the item has no earlier events."""
        user, item = _codes(users, self.users), _codes(items, self.items)
        known = (user >= 0) & (item >= 0)
        scores = np.zeros(len(user))
        if known.any():
            distinct, row = np.unique(user[known], return_inverse=True)
            scores[known] = np.asarray((self.history[distinct] @ self.weights)[row, item[known]]).ravel()
        return scores

    def of_lists(self, users: pl.Series, items: pl.Series) -> np.ndarray:
        """Score every item of a catalogue [I] for some users: float32 [U, I]."""
        user, item = _codes(users, self.users), _codes(items, self.items)
        found = np.zeros((len(user), len(item)), np.float32)
        mine, listed = np.flatnonzero(user >= 0), np.flatnonzero(item >= 0)
        if mine.size and listed.size:
            scores = (self.history[user[mine]] @ self.weights).toarray()
            found[np.ix_(mine, listed)] = scores[:, item[listed]]
        return found

    def _matrix(self, values: np.ndarray) -> Any:
        from scipy import sparse

        return sparse.csr_matrix((values, self._cells), (self.users.height, self.items.height))


class EaseBefore:
    """EASE of a task's feedback before each day, fitted once for rows and lists, with and without recency."""

    def __init__(self, days: Days) -> None:
        self._days = days
        self._fitted: dict[tuple[int, str], ItemItemScores] = {}

    def of(self, i: int, task: TaskSpec, *, recency: bool) -> ItemItemScores:
        """Give what scores day i."""
        if (i, task.name) not in self._fitted:
            events = events_before(self._days, i, task)
            self._fitted[i, task.name] = ItemItemScores(events, build_ease_of, MOST_EASE_ITEMS)
        found = self._fitted[i, task.name]
        return found.with_half_life(HALF_LIFE_DAYS) if recency else found


def _numbered(ids: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"id": ids.unique().sort()}).with_row_index("code")


def _codes(ids: pl.Series, numbered: pl.DataFrame) -> np.ndarray:
    found = ids.alias("id").to_frame().join(numbered, on="id", how="left", maintain_order="left")["code"]
    codes: np.ndarray = found.cast(pl.Int64).fill_null(-1).to_numpy()
    return codes
