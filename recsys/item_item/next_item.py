"""The sums behind a directed EASE: what came before an event, weighted by recency, and the event itself.

Plain EASE predicts each item of a user from all others, earlier or later. Here every event t is predicted
from the earlier ones: x_t = Σ w e_i over the events i before t, y_t = e_t. The sums Σ x xᵀ and Σ x yᵀ add up
over days and users. Sources: SLIT of Choi et al., WWW 2021 (SLIST), with all positions and recency.

Shapes: U users, N events, I items.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.errors import DataError
from recsys.item_item.histories import Histories
from recsys.item_item.recency import HalfLife, PerStep, Recency

LEAST_WEIGHT = 0.01
"""Of an earlier event: what counts less is left out."""
MOST_STEPS = 50
"""Earlier events that count at most."""
_CELLS_AT_ONCE = 8_000_000


@dataclass(frozen=True, slots=True)
class NextItemSums:
    """Products of what came before events, and of that with the events: float32 CSR [I, I] each."""

    before: Any
    """Σ x xᵀ, symmetric."""
    next: Any
    """Σ x yᵀ: row i, column j: how much i came before j."""

    def __add__(self, other: "NextItemSums") -> "NextItemSums":
        return NextItemSums(self.before + other.before, self.next + other.next)


def sum_next_items(
    histories: Histories, num_items: int, law: Recency, targets: np.ndarray | None = None
) -> NextItemSums:
    """Sum over events that have an earlier one.

    Args: law: what an earlier event counts, by its steps or days before the predicted one; targets: bool [N],
    the events that are predicted, such as those of one day, while earlier ones only precede; None: all.
    Raises: DataError when a half-life is asked for and events have no days, or targets has another length.
    """
    from scipy import sparse

    if targets is not None and targets.shape != histories.items.shape:
        raise DataError(f"targets has shape {targets.shape}; there are {histories.items.size} events")
    total = NextItemSums(*(sparse.csr_matrix((num_items, num_items), dtype=np.float32) for _ in range(2)))
    for block in _blocks_of_users(histories):
        part = histories.take(block)
        wanted = None if targets is None else targets[slice(*histories.starts[[block[0], block[-1] + 1]])]
        total += _sums_of(part, num_items, law, wanted)
    return total


def _blocks_of_users(histories: Histories) -> Iterator[np.ndarray]:
    """Cut users 0, 1, … so that a block's events with their earlier ones fit into memory."""
    done = np.cumsum(histories.counts) // max(1, _CELLS_AT_ONCE // MOST_STEPS)
    for users in np.split(np.arange(histories.num_users), np.flatnonzero(np.diff(done)) + 1):
        if users.size:
            yield users


def _sums_of(histories: Histories, num_items: int, law: Recency, targets: np.ndarray | None) -> NextItemSums:
    from scipy import sparse

    position = np.arange(histories.items.size) - np.repeat(histories.starts[:-1], histories.counts)
    predicted = position > 0 if targets is None else targets & (position > 0)
    rows, columns, weights = [], [], []
    for steps in range(1, MOST_STEPS + 1):
        events = np.flatnonzero(predicted & (position >= steps))
        weight = _weights(histories, events, steps, law)
        kept = weight >= LEAST_WEIGHT
        if not kept.any():
            break
        rows.append(events[kept])
        columns.append(histories.items[events[kept] - steps])
        weights.append(weight[kept])
    shape = (histories.items.size, num_items)
    if not rows:
        none = sparse.csr_matrix((num_items, num_items), dtype=np.float32)
        return NextItemSums(none, none)
    cells = (np.concatenate(rows), np.concatenate(columns))
    before = sparse.csr_matrix((np.concatenate(weights).astype(np.float32), cells), shape)
    events = np.flatnonzero(predicted)
    after = sparse.csr_matrix((np.ones(events.size, np.float32), (events, histories.items[events])), shape)
    turned = before.T.tocsr()
    return NextItemSums((turned @ before).tocsr(), (turned @ after).tocsr())


def _weights(histories: Histories, events: np.ndarray, steps: int, law: Recency) -> np.ndarray:
    """Weigh the event so many steps before each of some events: [E]."""
    if isinstance(law, PerStep):
        return np.full(events.size, law.factor ** (steps - 1))
    assert isinstance(law, HalfLife), "a law of recency is by steps or by days"
    if histories.days is None:
        raise DataError("a half-life needs the days of events; these have an order only, so decay per step")
    return law.of_ages(histories.days[events] - histories.days[events - steps])
