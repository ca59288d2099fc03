"""What one user's own past says of items: a score for taking an item again, and one by its neighbours.

    items taken, with their ages ─┬▶ the same item: log(1 + times, each halved per half-life)
                                  └▶ its neighbours: weights of the item-item table, halved likewise
    both ─▶ numbers of each candidate, which the ranker reads where `[item_item] feature` says so

Server and evaluation call the same functions with the same events. Legend: N events, I items, M and C rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from recsys.item_item.neighbours import ItemItem
from recsys.source_terms import NO_SOURCES, SourceTerms

READ_TERMS = NO_SOURCES
"""Half-lives of what the ranker reads: no night fits them, so they mean the same in all training rows."""
SCORE, PLACE, REPEAT = "item_item_score", "item_item_place", "repeat_score"
"""Names of the numbers that the ranker reads, in order; the last only where repeats are learned."""
_WEIGHED = 20.0
"""A score's logarithm is of 1 + so many times the score: EASE's scores are mostly between .01 and 1."""
_WIDTHS = np.array([2, 6, 4], np.float32)
"""Factors of what the ranker reads: about as wide then as its other numbers, which are standardised."""
LATEST = 200
"""Of a user so many of the latest items speak for others."""
_DAY_MS = 86_400_000.0
_NO_ROWS = np.zeros(0, np.int64)
_NO_SCORES = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenRows:
    """One user's standing events that took an item, as catalogue rows [N]; negative: unknown items."""

    rows: np.ndarray
    at_ms: np.ndarray
    takes: np.ndarray
    """bool [N]: the event speaks for the item's neighbours."""
    repeats: np.ndarray
    """bool [N]: the event speaks for taking the item again."""


@dataclass(frozen=True, slots=True)
class RowScores:
    """Scores of some rows; all others have 0."""

    rows: np.ndarray
    """int64 [M], rising."""
    scores: np.ndarray
    """float32 [M]."""

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Give the scores of rows [C]: float32."""
        found = np.zeros(rows.size, np.float32)
        if self.rows.size:
            place = np.minimum(np.searchsorted(self.rows, rows), self.rows.size - 1)
            met = self.rows[place] == rows
            found[met] = self.scores[place[met]]
        return found

    def best(self, count: int, allowed: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """List the allowed rows with the best scores above 0, best first, ties by row.

        Args: allowed: rows [N] -> bool [N].
        """
        if not count or not self.rows.size:
            return _NO_ROWS
        kept = (self.scores > 0) & allowed(self.rows)
        rows, scores = self.rows[kept], self.scores[kept]
        if rows.size > count:
            least = np.partition(scores, rows.size - count)[rows.size - count]
            tied = np.flatnonzero(scores == least)
            above = np.flatnonzero(scores > least)
            chosen = np.sort(np.concatenate([above, tied[: count - above.size]]))
            rows, scores = rows[chosen], scores[chosen]
        best: np.ndarray = rows[np.argsort(-scores, kind="stable")]
        return best


NO_ROW_SCORES = RowScores(_NO_ROWS, _NO_SCORES)


@dataclass(frozen=True, slots=True)
class PastNumbers:
    """What the ranker reads of a candidate by its user's past; without any past all of it is 0."""

    item_item: RowScores = NO_ROW_SCORES
    repeat: RowScores = NO_ROW_SCORES
    ordered: np.ndarray = field(default_factory=_NO_SCORES.copy)
    """Item-item's scores above 0, rising: float32 [P]."""

    @classmethod
    def of(cls, sources: "UserSources") -> "PastNumbers":
        """Read scores that were made with the half-lives of READ_TERMS."""
        scores = sources.item_item.scores
        return cls(sources.item_item, sources.repeat, np.sort(scores[scores > 0]))

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Give the numbers of rows [C]: float32 [C, 3], in the order SCORE, PLACE, REPEAT.

        The score on a log scale, of its own sign; 1 / log2(2 + items with a better score), and 0 where
        nothing speaks for the item; the repeat score, which is on a log scale.
        """
        score = self.item_item.of(rows)
        better = self.ordered.size - np.searchsorted(self.ordered, score, side="right")
        numbers = np.stack(
            [
                np.sign(score) * np.log1p(np.float32(_WEIGHED) * np.abs(score)),
                np.where(score > 0, 1 / np.log2(2 + better), 0),
                self.repeat.of(rows),
            ],
            axis=1,
        )
        found: np.ndarray = numbers.astype(np.float32, copy=False) * _WIDTHS
        return found


NO_PAST_NUMBERS = PastNumbers()


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSources:
    """One user's scores by their own past."""

    item_item: RowScores = NO_ROW_SCORES
    repeat: RowScores = NO_ROW_SCORES
    read: PastNumbers = NO_PAST_NUMBERS
    """What the ranker reads, where it does."""

    @classmethod
    def of(cls, taken: TakenRows, at_ms: int, table: ItemItem | None, terms: SourceTerms) -> "UserSources":
        """Score by what was taken before an instant. Args: table: None: no items have neighbours."""
        known = (taken.rows >= 0) & (taken.takes | taken.repeats)
        if not known.any():
            return cls()
        rows, ages = taken.rows[known], (at_ms - taken.at_ms[known]) / _DAY_MS
        ages = np.maximum(ages, 0.0)
        takes, repeats = taken.takes[known], taken.repeats[known]
        near = NO_ROW_SCORES
        if table is not None and takes.any():
            near = RowScores(*table.scores(*latest_weights(rows[takes], ages[takes], terms.item_item_days)))
        return cls(item_item=near, repeat=repeat_scores(rows[repeats], ages[repeats], terms.repeat_days))


def latest_weights(rows: np.ndarray, ages: np.ndarray, half_life: float) -> tuple[np.ndarray, np.ndarray]:
    """Give the newest LATEST distinct items, and what each still counts by its latest event.

    Args: ages: days [N]. Returns: rows [M], weights float32 [M].
    """
    order = np.lexsort((rows, ages))
    distinct, first = np.unique(rows[order], return_index=True)
    if distinct.size > LATEST:
        first = np.sort(first)[:LATEST]
    newest = order[first]
    return rows[newest], np.exp2(-ages[newest] / half_life).astype(np.float32)


def repeat_scores(rows: np.ndarray, ages: np.ndarray, half_life: float) -> RowScores:
    """Score each item by the times it was taken, each halved per half-life: on a log scale, so that the
    hundredth time says less than the first ones. Args: ages: days [N].
    """
    if not rows.size:
        return NO_ROW_SCORES
    distinct, place = np.unique(rows, return_inverse=True)
    times = np.bincount(place, np.exp2(-ages / half_life), distinct.size)
    return RowScores(distinct, np.log1p(times).astype(np.float32))


def popularity(counts: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
    """Put counts [P], largest first, or those at some places, on a log scale from 0 to 1: float32."""
    asked = counts if places is None else counts[places]
    most = float(counts[0]) if counts.size else 0.0
    if most <= 0:
        return np.zeros(asked.size, np.float32)
    shares: np.ndarray = np.log1p(np.maximum(asked, 0.0, dtype=np.float64)) / np.log1p(most)
    return shares.astype(np.float32)
