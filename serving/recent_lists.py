"""The scored candidates of recent answers, for a user who comes back when there is no time to score.

A list is found again by its user and by what of the request decides which items are candidates. It belongs to
one process and one version, for ten minutes. Its items must be checked again: they may have been withdrawn,
denied or bought since. Fresh items are left out, as their rows may change.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.request import RankRequest
from serving.retrieval import PINNED

MAX_LISTS = 2_048
"""A list of 500 candidates takes 7 kB."""
VALID_MS = 10 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentList:
    """Candidates [N] with their scores, rows of the bundle's catalogue."""

    rows: npt.NDArray[np.int32]
    sources: npt.NDArray[np.uint16]
    scores: npt.NDArray[np.float64]
    at_ms: int

    @classmethod
    def of(
        cls,
        rows: npt.NDArray[np.int64],
        sources: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float64],
        num_in_bundle: int,
        at_ms: int,
    ) -> "RecentList":
        """Keep of scored candidates [N] those that the bundle has and that a source found.

        Pins are of one request: an item that was only pinned is none of the next one's candidates.
        """
        found = sources & ~PINNED
        known = (rows < num_in_bundle) & (found > 0)
        return cls(
            rows=rows[known].astype(np.int32),
            sources=found[known].astype(np.uint16),
            scores=scores[known],
            at_ms=at_ms,
        )

    def scores_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the scores of rows [N]; one that is not in the list gets the lowest."""
        score = dict(zip(self.rows.tolist(), self.scores.tolist(), strict=True))
        lowest = min(score.values(), default=0.0)
        return np.array([score.get(row, lowest) for row in rows.tolist()], np.float64)


class RecentLists:
    """The latest lists, at most MAX_LISTS; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: OrderedDict[tuple[str, int], RecentList] = OrderedDict()

    def keep(self, request: RankRequest, recent: RecentList) -> None:
        """Keep a list in place of an earlier one."""
        key = _key(request)
        with self._lock:
            self._lists[key] = recent
            self._lists.move_to_end(key)
            if len(self._lists) > MAX_LISTS:
                self._lists.popitem(last=False)

    def find(self, request: RankRequest, at_ms: int) -> RecentList | None:
        """Return the request's list; None when there is none, or none so young."""
        with self._lock:
            recent = self._lists.get(_key(request))
        return recent if recent is not None and 0 <= at_ms - recent.at_ms <= VALID_MS else None


def _key(request: RankRequest) -> tuple[str, int]:
    """Return the user and a hash of the rest; a page, the context and denied items do not matter."""
    wanted = request.filter
    rest = (
        request.seed_item_id,
        request.item_ids,
        frozenset(request.head_weights.items()),
        wanted.categories,
        wanted.min_price,
        wanted.max_price,
        wanted.allow_item_ids,
        wanted.include_unavailable,
    )
    return request.user_id, hash(rest)
