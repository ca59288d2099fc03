"""Estimators of `recsys.offpolicy` as metrics of a policy that ranks: what its lists would have earned.

The target goes on from the items that the log shows above: at each place it takes its best item that is not
above. Legend: R logged lists, K places.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from recsys.offpolicy.estimators import Weights, estimator_terms
from recsys.offpolicy.logged import LoggedLists
from recsys.offpolicy.target import Predictions, TargetPolicy

if TYPE_CHECKING:
    from benchmarks.lists.log_metrics import Evidence
    from benchmarks.lists.policies import Policy


def estimator(name: str) -> "Callable[[Evidence, Policy], float]":
    """Make a metric of one estimator; its model is that of hindsight."""

    def value(evidence: "Evidence", policy: "Policy") -> float:
        weights = _weights(evidence, policy)
        terms = estimator_terms(weights, places_apart=False)[name]
        total = terms.denominator.sum(axis=0)
        if not (total > 0).all():
            return float("nan")
        return float((terms.numerator.sum(axis=0) / total).sum())

    return value


def _weights(evidence: "Evidence", policy: "Policy") -> Weights:
    rows = whole_lists(evidence, policy.pages.shape[1])
    logged = evidence.logged
    user, shown = logged.user[rows[:, 0]], logged.column[rows]
    lists = LoggedLists.of_lists(evidence.reward()[rows], logged.propensity[rows], user)
    chosen = next_choices(policy.ranked[user], shown)
    seen = evidence.examination[np.minimum(logged.position[rows], evidence.examination.size - 1)]
    predictions = Predictions.of_places(
        shown=seen * _worth(evidence, user, shown),
        expected=seen * _worth(evidence, user, chosen),
        direct=(seen * _worth(evidence, user, policy.pages[user])).sum(axis=1),
    )
    return Weights.of(lists, TargetPolicy.of((chosen == shown).astype(np.float64), predictions))


def whole_lists(evidence: "Evidence", places: int) -> np.ndarray:
    """Give the rows [R, K] of the logged lists all of whose items may be listed, in order of position."""
    logged = evidence.logged
    order = np.lexsort((logged.position, logged.request))
    whole = np.bincount(logged.request)[logged.request[order]] == places
    found: np.ndarray = order[whole].reshape(-1, places)
    return found


def next_choices(ranked: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Give what a ranking [R, L] puts at each place, given the items [R, K] shown above: columns [R, K]."""
    taken = np.zeros(ranked.shape, bool)
    found = np.empty_like(shown)
    rows = np.arange(shown.shape[0])
    for place in range(shown.shape[1]):
        found[:, place] = ranked[rows, np.argmin(taken, axis=1)]
        taken |= ranked == shown[:, place, None]
    return found


def _worth(evidence: "Evidence", user: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Give what the model of hindsight expects of items [R, K], as if they were looked at; of none, 0."""
    weights = evidence.hindsight.fusion.weights
    said = evidence.hindsight.predictions
    total = np.sum([weights[t] * said[t][user[:, None], columns] for t in evidence.reward_tasks], axis=0)
    found: np.ndarray = np.where(columns >= 0, np.nan_to_num(total), 0.0).astype(np.float64)
    return found
