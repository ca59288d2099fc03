"""What a log says of a policy: METRICS, name -> the function that measures it. Each may be wrong.

A metric reads the fixed requests' lists, and of the last day what was shown, its labels and propensities.
NaN: it has nothing to say of this policy. To add one, add an entry. Legend: U requests, N rows, K places.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.lists.off_policy import estimator
from benchmarks.lists.policies import Policy
from benchmarks.lists.scores import Scored
from benchmarks.lists.shop_night import LoggedRows
from recsys.metrics import ranking
from recsys.metrics.columns import Lists
from recsys.metrics.examination import examination_curve
from recsys.metrics.list_auc import list_auc

_TASKS_OF_REWARD = ("click", "purchase")
"""Those of which every impression has a label."""
_LARGEST_WEIGHT = 1_000.0
"""At which 1 / propensity is clipped: a policy that draws evenly from 460 items has .002."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What metrics read beside a policy: the log of the last day, and two models' predictions."""

    logged: LoggedRows
    num_users: int
    today: Scored
    """Of the model that some of the policies are made of."""
    hindsight: Scored
    """Of a model that no policy is made of, which has learned the last day too."""
    examination: np.ndarray
    """[K + 1]: how likely each position is looked at, as the log says; of the first, 1."""

    @classmethod
    def of(cls, logged: LoggedRows, num_users: int, today: Scored, hindsight: Scored) -> "Evidence":
        """Read the curve of examination off the rows that have a label."""
        click = logged.labels["click"]
        expected = today.predictions["click"][logged.user, logged.column].astype(np.float64)
        known = ~np.isnan(click) & ~np.isnan(expected)
        curve = examination_curve(
            logged.position[known], click[known], expected[known], np.ones(int(known.sum()))
        )
        return cls(logged=logged, num_users=num_users, today=today, hindsight=hindsight, examination=curve)

    def with_random_labels(self, rng: np.random.Generator) -> "Evidence":
        """Give the same log with its labels shuffled over the rows."""
        order = rng.permutation(self.logged.user.size)
        shuffled = {task: labels[order] for task, labels in self.logged.labels.items()}
        return replace(self, logged=replace(self.logged, labels=shuffled))

    @property
    def reward_tasks(self) -> tuple[str, ...]:
        """Name the tasks that a logged row's reward is made of."""
        return _TASKS_OF_REWARD

    def reward(self) -> np.ndarray:
        """Give what each logged row earned [N], clicks and purchases by their weight; unknown: 0."""
        weights = self.today.fusion.weights
        found: np.ndarray = np.sum(
            [weights[t] * np.nan_to_num(self.logged.labels[t]) for t in _TASKS_OF_REWARD], axis=0
        )
        return found

    def num_requests(self) -> int:
        """Count the logged lists."""
        return int(np.unique(self.logged.request).size)


def _clicked(evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """Give offsets [U + 1] and columns of what each user clicked that day."""
    logged = evidence.logged
    hit = np.flatnonzero(logged.labels["click"] > 0)
    pairs = np.unique(np.stack([logged.user[hit], logged.column[hit]], axis=1), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=evidence.num_users)
    return np.concatenate([[0], np.cumsum(counts)]), pairs[:, 1]


def _ndcg(evidence: Evidence, policy: Policy) -> float:
    matches = ranking.match(policy.pages, *_clicked(evidence))
    return float(np.nanmean(ranking.ndcg_at_k(matches, policy.pages.shape[1])))


def _hit_rate(evidence: Evidence, policy: Policy) -> float:
    matches = ranking.match(policy.pages, *_clicked(evidence))
    return float((matches.hit.sum(axis=1) > 0)[matches.num_relevant > 0].mean())


def _recall(evidence: Evidence, policy: Policy) -> float:
    if policy.ranked.shape[1] == policy.pages.shape[1]:
        return float("nan")
    matches = ranking.match(policy.ranked, *_clicked(evidence))
    return float(np.nanmean(ranking.recall_at_k(matches, policy.ranked.shape[1])))


def _agreement(evidence: Evidence, policy: Policy) -> float:
    """Give the share of a page's items that the log showed the user that day."""
    logged = evidence.logged
    shown = np.zeros(evidence.today.candidates.shape, bool)
    shown[logged.user, logged.column] = True
    pages = policy.pages
    found = shown[np.arange(pages.shape[0])[:, None], pages] & (pages >= 0)
    return float(found.sum() / max((pages >= 0).sum(), 1))


def _order(task: str) -> Callable[[Evidence, Policy], float]:
    """Make the AUC, inside the lists that were shown, of the policy's scores."""

    def value(evidence: Evidence, policy: Policy) -> float:
        if policy.scores is None:
            return float("nan")
        logged = evidence.logged
        score = policy.scores[logged.user, logged.column].astype(np.float64)
        label = logged.labels[task]
        known = ~np.isnan(label) & np.isfinite(score)
        return list_auc(label[known], score[known], Lists.unplaced(logged.request[known]))

    return value


def _predicted(of: Callable[[Evidence], Scored]) -> Callable[[Evidence, Policy], float]:
    """Make the direct method: what a model's calibrated heads expect of the pages."""

    def value(evidence: Evidence, policy: Policy) -> float:
        pages = policy.pages
        worth = of(evidence).fused()[np.arange(pages.shape[0])[:, None], pages]
        seen = _seen(evidence, pages.shape[1])
        return float((seen * np.where(pages >= 0, np.nan_to_num(worth), 0.0)).sum(axis=1).mean())

    return value


def _seen(evidence: Evidence, places: int) -> np.ndarray:
    curve = evidence.examination
    found: np.ndarray = curve[np.minimum(np.arange(1, places + 1), curve.size - 1)]
    return found


def _matches(evidence: Evidence, policy: Policy) -> np.ndarray:
    """Give 1 / propensity of each logged row [N] whose place the policy would fill with the same item."""
    logged, pages = evidence.logged, policy.pages
    inside = logged.position <= pages.shape[1]
    same = inside & (pages[logged.user, np.where(inside, logged.position, 1) - 1] == logged.column)
    found: np.ndarray = np.where(same, 1.0 / logged.propensity, 0.0)
    return found


def _ips(evidence: Evidence, policy: Policy) -> float:
    """Estimate a page's value place by place, as if a place did not depend on those above it."""
    return float((_matches(evidence, policy) * evidence.reward()).sum() / evidence.num_requests())


def _snips(evidence: Evidence, policy: Policy) -> float:
    """Do the same, normalised by the sum of the weights at each place."""
    weight, reward = _matches(evidence, policy), evidence.reward()
    by_place = np.bincount(evidence.logged.position, weight)
    earned = np.bincount(evidence.logged.position, weight * reward)
    return float(np.divide(earned, by_place, where=by_place > 0, out=np.zeros_like(earned)).sum())


def _listed(evidence: Evidence, policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """Find the logged rows whose item is on the policy's page, wherever: their numbers [M], how likely the
    page's place of each is looked at [M]."""
    logged, pages = evidence.logged, policy.pages
    place = np.full(evidence.today.candidates.shape, -1, np.int8)
    users, places = np.nonzero(pages >= 0)
    place[users, pages[users, places]] = places
    at = place[logged.user, logged.column]
    rows = np.flatnonzero(at >= 0)
    return rows, _seen(evidence, pages.shape[1])[at[rows]]


def _earned(evidence: Evidence, rows: np.ndarray) -> np.ndarray:
    """Give what logged rows [M] earned, as if each had surely been looked at."""
    seen: np.ndarray = evidence.examination[
        np.minimum(evidence.logged.position[rows], evidence.examination.size - 1)
    ]
    return np.asarray(evidence.reward()[rows] / seen)


def _replay(*, weighted: bool) -> Callable[[Evidence, Policy], float]:
    """Make the mean earned by items of the page that the log happens to have shown, each by its place.

    Args: weighted: by 1 / propensity. Given what stands above, sum(1 / propensity) of a place counts every
    item of the page alike that is not shown yet; the log's preferences are taken out.
    """

    def value(evidence: Evidence, policy: Policy) -> float:
        rows, seen = _listed(evidence, policy)
        weight = seen * (_inverse(evidence, rows) if weighted else 1.0)
        total = weight.sum()
        mean = float((weight * _earned(evidence, rows)).sum() / total) if total > 0 else float("nan")
        return mean * float(_seen(evidence, policy.pages.shape[1]).sum())

    return value


def _corrected(evidence: Evidence, policy: Policy) -> float:
    """Add to the direct method of hindsight its mean error on items of the page that the log has shown."""
    rows, seen = _listed(evidence, policy)
    logged, weights = evidence.logged, evidence.hindsight.fusion.weights
    expected = np.sum(
        [
            weights[t] * evidence.hindsight.predictions[t][logged.user[rows], logged.column[rows]]
            for t in _TASKS_OF_REWARD
        ],
        axis=0,
    )
    weight = seen * _inverse(evidence, rows)
    error = float((weight * (_earned(evidence, rows) - expected)).sum() / max(weight.sum(), 1e-12))
    direct = METRICS["direct_method_hindsight"](evidence, policy)
    return direct + error * float(_seen(evidence, policy.pages.shape[1]).sum())


def _inverse(evidence: Evidence, rows: np.ndarray) -> np.ndarray:
    """Give 1 / propensity of logged rows [M], clipped."""
    found: np.ndarray = np.minimum(1.0 / evidence.logged.propensity[rows], _LARGEST_WEIGHT)
    return found


METRICS: Mapping[str, Callable[[Evidence, Policy], float]] = {
    "ndcg_at_10": _ndcg,
    "recall_at_50": _recall,
    "hit_rate_at_10": _hit_rate,
    "agreement_with_log": _agreement,
    "click_list_auc": _order("click"),
    "purchase_list_auc": _order("purchase"),
    "direct_method": _predicted(lambda evidence: evidence.today),
    "direct_method_hindsight": _predicted(lambda evidence: evidence.hindsight),
    "ips_by_place": _ips,
    "snips_by_place": _snips,
    "replay_in_page": _replay(weighted=False),
    "snips_in_page": _replay(weighted=True),
    "direct_method_corrected": _corrected,
    "rips": estimator("rips"),
    "snrips": estimator("snrips"),
    "cascade_dr": estimator("cascade_dr"),
}
"""Key in JSON -> the metric; more is better in all of them."""
