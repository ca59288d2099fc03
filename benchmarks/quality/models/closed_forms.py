"""Closed forms for the next item, settings chosen on validation: the product's item-item, EASE, item-kNN.

Settings are chosen among the most frequent items, where a fit takes seconds; what is measured is fitted on
the whole catalogue. A fit's scores are a user's weighted history times its weights.

Shapes: V users, I items.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.quality.models.next_items import Part, Scorer, rank
from recsys.item_item.directed import Setting, Sums, build_directed
from recsys.item_item.ease import MOST_ITEMS, ease_weights
from recsys.item_item.knn import build_item_knn
from recsys.item_item.neighbours import event_matrix
from recsys.item_item.pair_counts import count_pairs
from recsys.item_item.recency import STEPS, PerStep, Recency, choose_recency

CHOICE_ITEMS, CHOICE_USERS = 4_000, 5_000
"""Most frequent items among which settings are chosen, and users whose lists are ranked for a choice."""
NO_DECAY = PerStep(1.0)
PENALTIES = (50.0, 100.0, 200.0, 400.0, 800.0)
SHRINKAGES, NEIGHBOURS = (0.0, 10.0, 100.0), (50, 200)
CLIMBED = ("attributes", "steps", "penalty", "shrinkage")
MOST_CLIMBS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Weights [I, I], dense or sparse, and what an event of a history counts."""

    weights: Any
    recency: Recency

    def scorer(self, part: Part) -> Scorer:
        """Score from users' histories in a part."""

        def score(users: np.ndarray) -> np.ndarray:
            known = part.known.take(users)
            found = event_matrix(known, self.recency.weights(known), part.num_items) @ self.weights
            return found if isinstance(found, np.ndarray) else np.asarray(found.toarray())

        return score


def popular(part: Part) -> Scorer:
    """Score an item by how many users have it."""
    counts = np.asarray(part.met.sum(axis=0)).ravel()
    return lambda users: np.broadcast_to(counts, (users.size, counts.size))


@dataclass(frozen=True, slots=True)
class Choice:
    """Chooses settings on the validation part."""

    validation: Part

    @property
    def few_items(self) -> Part:
        """Give the part of the most frequent items."""
        return self.validation.of_items(CHOICE_ITEMS).of_users(CHOICE_USERS)

    def recency(self, weights: Any, part: Part, laws: Sequence[Recency] = STEPS) -> Recency:
        """Choose what an event of a history counts, for a fit on a part.

        Args: laws: to choose from.
        """

        def worth(of_events: np.ndarray) -> float:
            return rank(_weighted(part, of_events, weights), part).worth

        return choose_recency(part.known, worth, laws)[0]

    def setting(self, *, attributes: bool = True, order: bool = True) -> tuple[Setting, Recency]:
        """Choose what a history's events count, then climb from the default settings.

        Args: attributes, order: False: leave that kind of rows out.
        """
        part = self.few_items
        start = Setting()
        sums = Sums.of(part.known, part.num_items, start.recency)
        cosines = self.validation.num_items > MOST_ITEMS
        start = replace(
            start,
            attributes=start.attributes * (attributes and part.attributes is not None),
            steps=start.steps * order,
            penalty=start.penalty * (not cosines),
            shrinkage=start.shrinkage * cosines,
        )

        def weights(setting: Setting) -> Any:
            return build_directed(sums, setting, part.attributes, cosines=cosines).matrix()

        law = self.recency(weights(start), part)

        def worth(setting: Setting) -> float:
            return rank(Model(weights=weights(setting), recency=law).scorer(part), part).worth

        return climb(start, worth), law

    def ease(self, laws: Sequence[Recency]) -> tuple[float, Recency]:
        """Choose EASE's penalty, and the law of recency among some."""
        part = self.few_items
        gram = count_pairs(part.known, part.num_items)
        best, chosen = -math.inf, (PENALTIES[0], laws[0])
        for penalty in PENALTIES:
            weights = ease_weights(gram, penalty)
            for law in laws:
                value = rank(Model(weights=weights, recency=law).scorer(part), part).worth
                if value > best:
                    best, chosen = value, (penalty, law)
        return chosen

    def item_knn(self) -> tuple[float, int]:
        """Choose item-kNN's shrinkage and number of neighbours."""
        part = self.few_items
        met = part.met
        best, chosen = -math.inf, (SHRINKAGES[0], NEIGHBOURS[0])
        for shrinkage in SHRINKAGES:
            for most in NEIGHBOURS:
                weights = build_item_knn(met, shrinkage=shrinkage, most=most).matrix()
                value = rank(Model(weights=weights, recency=NO_DECAY).scorer(part), part).worth
                if value > best:
                    best, chosen = value, (shrinkage, most)
        return chosen


def climb(start: Setting, worth: Callable[[Setting], float]) -> Setting:
    """Double or halve one number at a time while that is worth more; a number that is 0 stays 0."""
    best, value = start, worth(start)
    for name in CLIMBED:
        for trials in _ways(best, name):
            gained = False
            for trial in trials:
                if (found := worth(trial)) <= value:
                    break
                best, value, gained = trial, found, True
            if gained:
                break
    return best


def _ways(setting: Setting, name: str) -> Iterator[Iterator[Setting]]:
    """Give the settings upwards, then those downwards."""
    number = getattr(setting, name)
    for factor in (2.0, 0.5) if number else ():
        yield (replace(setting, **{name: number * factor**n}) for n in range(1, MOST_CLIMBS + 1))


def beside(law: Recency) -> Sequence[Recency]:
    """Give a law of recency and its neighbours."""
    place = STEPS.index(law)
    return STEPS[max(0, place - 1) : place + 2]


def fit_ours(part: Part, setting: Setting) -> Any:
    """Fit the product's item-item weights, cut as a bundle has them: sparse [I, I]."""
    sums = Sums.of(part.known, part.num_items, setting.recency)
    return build_directed(sums, setting, part.attributes).matrix()


class Ease:
    """EASE's whole weights; the last fit is kept for a row that asks for it again."""

    def __init__(self) -> None:
        self._last: tuple[Part, float, np.ndarray] | None = None

    def fit(self, part: Part, penalty: float) -> np.ndarray:
        """Give the weights [I, I]."""
        if self._last is None or self._last[0] is not part or self._last[1] != penalty:
            self._last = None
            self._last = (part, penalty, ease_weights(count_pairs(part.known, part.num_items), penalty))
        return self._last[2]


def _weighted(part: Part, of_events: np.ndarray, weights: Any) -> Scorer:
    table = event_matrix(part.known, of_events, part.num_items)

    def score(users: np.ndarray) -> np.ndarray:
        found = table[users] @ weights
        return found if isinstance(found, np.ndarray) else np.asarray(found.toarray())

    return score
