"""Users' events as flat arrays, oldest first, at most the latest 200 a user.

Shapes: U users, N events, I items.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.errors import DataError

MOST_EVENTS = 200
"""Of a user, the latest: a longer history says little more, and its pairs grow with the square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """Events of users 0, 1, …: those of user u are `items[starts[u]:starts[u + 1]]`, oldest first."""

    starts: np.ndarray
    """int64 [U + 1]."""
    items: np.ndarray
    """int32 [N], rows of the catalogue."""
    days: np.ndarray | None = None
    """float32 [N]: when each event was, in days since any one instant; None: only the order is known."""
    values: np.ndarray | None = None
    """float32 [N]: what an event counts, such as more for a purchase than for a view; None: 1 each."""

    @classmethod
    def of(
        cls,
        users: np.ndarray,
        items: np.ndarray,
        *,
        num_users: int,
        days: np.ndarray | None = None,
        values: np.ndarray | None = None,
        most: int = MOST_EVENTS,
    ) -> "Histories":
        """Put events [N] in order: by user, then by day; events of one instant stay as they are given.

        Args: users: 0 … num_users - 1; most: latest events of a user that are kept.
        Raises: DataError when arrays differ in length, or a user or an item is no row number.
        """
        _check(users, num_users, {"items": items, "days": days, "values": values})
        order = np.argsort(users, kind="stable") if days is None else np.lexsort((days, users))
        counts = np.bincount(users, minlength=num_users)
        ends = np.cumsum(counts)
        kept = order[np.repeat(ends, counts) - np.arange(users.size) <= most]

        def put(column: np.ndarray | None, dtype: type[np.generic]) -> np.ndarray | None:
            return None if column is None else column[kept].astype(dtype)

        return cls(
            starts=np.concatenate([[0], np.cumsum(np.minimum(counts, most))]).astype(np.int64),
            items=items[kept].astype(np.int32),
            days=put(days, np.float32),
            values=put(values, np.float32),
        )

    @property
    def num_users(self) -> int:
        """Count users, also those without events."""
        return self.starts.size - 1

    @property
    def counts(self) -> np.ndarray:
        """Count each user's events: int64 [U]."""
        return np.diff(self.starts)

    @property
    def users(self) -> np.ndarray:
        """Give each event's user: int64 [N]."""
        return np.repeat(np.arange(self.num_users), self.counts)

    @property
    def steps_back(self) -> np.ndarray:
        """Count how many later events of its user each event has: int64 [N]; the latest has 0."""
        return np.repeat(self.starts[1:], self.counts) - 1 - np.arange(self.items.size)

    def take(self, users: np.ndarray) -> "Histories":
        """Select users [V], in that order."""
        counts = self.counts[users]
        starts = np.concatenate([[0], np.cumsum(counts)])
        events = np.repeat(self.starts[users] - starts[:-1], counts) + np.arange(starts[-1])
        return Histories(
            starts=starts,
            items=self.items[events],
            days=None if self.days is None else self.days[events],
            values=None if self.values is None else self.values[events],
        )

    def matrix(self, num_items: int, weights: np.ndarray | None = None) -> Any:
        """Make the matrix of users and items: sparse CSR float32 [U, I]; an item met again counts once.

        Args: weights: of the events [N], each more than 0; None: `values`, or 1 each. Of an item
        that is met again the largest counts.
        Raises: DataError when an item is not among num_items.
        """
        from scipy import sparse

        if self.items.max(initial=-1) >= num_items:
            raise DataError(
                f"a history holds item row {self.items.max()}; the catalogue has {num_items} items"
            )
        if weights is None:
            weights = np.ones(self.items.size, np.float32) if self.values is None else self.values
        keys = self.users * num_items + self.items
        order = np.lexsort((weights, keys))
        last = np.append(keys[order][1:] != keys[order][:-1], True)[: order.size]
        chosen = order[last]
        rows, columns = np.divmod(keys[chosen], num_items)
        ends = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=self.num_users))])
        data = weights[chosen].astype(np.float32)
        return sparse.csr_matrix((data, columns.astype(np.int32), ends), (self.num_users, num_items))


def _check(users: np.ndarray, num_users: int, columns: dict[str, np.ndarray | None]) -> None:
    for name, column in columns.items():
        if column is not None and column.shape != users.shape:
            raise DataError(
                f"{name} has shape {column.shape} and users {users.shape}; give one of each an event"
            )
    for name, rows in (("users", users), ("items", columns["items"])):
        if rows is not None and rows.size and rows.min() < 0:
            raise DataError(f"{name} holds {rows.min()}; rows are numbered from 0, leave unknown ones out")
    if users.size and users.max() >= num_users:
        raise DataError(
            f"users holds {users.max()}; num_users is {num_users}, so the last is {num_users - 1}"
        )
