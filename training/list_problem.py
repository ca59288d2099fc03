"""Candidates of many lists side by side, and what an order of them is worth.

Legend: U lists, C candidates, K places.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.metrics.effect import Effect
from recsys.metrics.inference import paired_bootstrap_means
from training.evaluation.audience import Audience

_PAGE = 10
_LONG = 50
_RECALL_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ListProblem:
    """What lists may be made of, and which items of them were wanted."""

    rows: np.ndarray
    """[U, C], padded with -1."""
    columns: Mapping[str, np.ndarray]
    """float32 [U, C]: what a score may be made of; `heads` is the fused score of the heads."""
    wanted: np.ndarray
    """bool [U, C]."""
    num_wanted: np.ndarray
    """[U], with those that are no candidates."""
    users: Sequence[str]
    days: np.ndarray
    """[U]: of which day each list is, as a number."""

    @classmethod
    def of(cls, audience: Audience, rows: np.ndarray, columns: Mapping[str, np.ndarray]) -> "ListProblem":
        """Compare candidates with what an audience wanted."""
        wanted = np.zeros(rows.shape, np.bool_)
        for u in range(rows.shape[0]):
            codes = audience.codes[audience.offsets[u] : audience.offsets[u + 1]]
            wanted[u] = np.isin(rows[u], codes)
        return cls(
            rows=rows,
            columns=columns,
            wanted=wanted,
            num_wanted=np.diff(audience.offsets),
            users=audience.requests["user_id"].to_list(),
            days=np.full(rows.shape[0], audience.day.toordinal()),
        )

    @classmethod
    def join(cls, parts: Sequence["ListProblem"]) -> "ListProblem":
        """Put lists below each other."""
        widest = max(part.rows.shape[1] for part in parts)

        def stacked(arrays: Sequence[np.ndarray], padding: float) -> np.ndarray:
            padded = [np.pad(a, ((0, 0), (0, widest - a.shape[1])), constant_values=padding) for a in arrays]
            return np.concatenate(padded)

        return cls(
            rows=stacked([part.rows for part in parts], -1),
            columns={n: stacked([part.columns[n] for part in parts], 0.0) for n in parts[0].columns},
            wanted=stacked([part.wanted for part in parts], 0),
            num_wanted=np.concatenate([part.num_wanted for part in parts]),
            users=[user for part in parts for user in part.users],
            days=np.concatenate([part.days for part in parts]),
        )

    def only(self, lists: np.ndarray) -> "ListProblem":
        """Keep some lists. Args: lists: bool [U]."""
        return ListProblem(
            rows=self.rows[lists],
            columns={name: values[lists] for name, values in self.columns.items()},
            wanted=self.wanted[lists],
            num_wanted=self.num_wanted[lists],
            users=[user for user, kept in zip(self.users, lists.tolist(), strict=True) if kept],
            days=self.days[lists],
        )

    @property
    def heads(self) -> np.ndarray:
        """Give the fused score of the heads [U, C]."""
        return self.columns["heads"]

    def worth(self, scores_UC: np.ndarray) -> float:
        """Give what a search maximises: NDCG@10, and half as much recall@50, mean over lists."""
        hit_UK = self._best(scores_UC, _LONG)
        recall_U = hit_UK.sum(axis=1) / self.num_wanted
        return float(np.mean(self._ndcg(hit_UK) + _RECALL_SHARE * recall_U))

    def ndcg(self, scores_UC: np.ndarray) -> np.ndarray:
        """Give the NDCG@10 of each list [U]."""
        return self._ndcg(self._best(scores_UC, _PAGE))

    def ratio(self, wide_UC: np.ndarray, other_UC: np.ndarray) -> float:
        """Give how many times as wide one score is as another, inside lists."""
        spreads = [float(np.nanmean(np.nanstd(self._known(part), axis=1))) for part in (wide_UC, other_UC)]
        return spreads[0] / spreads[1] if min(spreads) > 0 else 1.0

    def _known(self, scores_UC: np.ndarray) -> np.ndarray:
        return np.where(self.rows >= 0, scores_UC, np.nan)

    def _best(self, scores_UC: np.ndarray, places: int) -> np.ndarray:
        """Tell of the best candidates, in order, whether they were wanted: bool [U, K]."""
        masked = np.where(self.rows >= 0, scores_UC, -np.inf)
        places = min(places, masked.shape[1])
        best = np.argpartition(-masked, places - 1, axis=1)[:, :places]
        best.sort(axis=1)
        values = np.take_along_axis(masked, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        found: np.ndarray = np.take_along_axis(self.wanted, np.take_along_axis(best, order, axis=1), axis=1)
        return found

    def _ndcg(self, hit_UK: np.ndarray) -> np.ndarray:
        gain = 1.0 / np.log2(np.arange(2, _PAGE + 2))
        most = np.cumsum(gain)[np.minimum(self.num_wanted, _PAGE) - 1]
        page = hit_UK[:, :_PAGE]
        found: np.ndarray = page @ gain[: page.shape[1]] / most
        return found


def gain_of_users(users: Sequence[str], before_U: np.ndarray, after_U: np.ndarray, seed: int) -> Effect:
    """Compare two orders of the same lists by the mean over users, each user's lists averaged first."""
    _, place = np.unique(np.array(users), return_inverse=True)
    counts = np.bincount(place)
    means = [np.bincount(place, values) / counts for values in (before_U, after_U)]
    return paired_bootstrap_means("ndcg_at_10", *means, generator=np.random.default_rng(seed))
