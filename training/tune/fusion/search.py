"""Search weights: a Pareto front over the tasks' values, on one half of the users."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna

from recsys.fusion import FORMULAS, Fusion
from recsys.source_terms import NO_SOURCES
from training.tune.fusion.value import Lists, list_values
from training.tune.study import Budget, complete, nearest_to_ideal, search

_DECADES = 2.0
"""Powers of ten searched around the weights at which every task spreads the score equally."""
_OFFSETS = (1e-4, 1.0)
_POPULATION = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Ratios of the tasks' weights, the first task's being 1: the heads' part stays as wide as it was.

    A ratio of 1 lets a task's prediction move the score inside a list as much as the first one's does. The
    sources' part is not searched: it keeps its share beside the heads'.
    """

    lists: Lists
    current: Fusion
    formula: str
    spread: Mapping[str, float]
    """Task -> standard deviation, inside a list, of what its weight multiplies."""
    unit: float = 1.0
    """How far the first task's part spreads the score: what weights that stay are held against."""

    @classmethod
    def of(cls, lists: Lists, current: Fusion, formula: str) -> "Space":
        """Measure the spreads."""
        spread = {}
        for task in lists.tasks:
            values = lists.predictions[task.name].astype(np.float64)
            if formula == "multiplicative":
                term = current.terms[task.name]
                values = np.log(np.clip((values - term.low) / (term.high - term.low), 1e-6, 1.0))
            spread[task.name] = max(within(lists, values), 1e-12)
        stays = [term.weight for name, term in current.terms.items() if name not in spread and term.weight]
        # Only ratios count here. Beside a task that is not searched, the strongest searched task keeps its
        # strength.
        now = max(abs(current.terms[name].weight) * s for name, s in spread.items())
        unit = now if stays and now and formula == current.formula else 1.0
        return cls(lists=lists, current=current, formula=formula, spread=spread, unit=unit)

    def suggest(self, trial: optuna.Trial) -> Fusion:
        """Draw ratios, and offsets where the formula has them."""
        names = list(self.spread)
        ratios = {names[0]: 1.0} | {
            name: 10 ** trial.suggest_float(f"ratio.{name}", -_DECADES, _DECADES) for name in names[1:]
        }
        offsets = {}
        if self.formula == "multiplicative":
            offsets = {n: trial.suggest_float(f"offset.{n}", *_OFFSETS, log=True) for n in names}
        return self.fusion(ratios, offsets)

    def fusion(self, ratios: Mapping[str, float], offsets: Mapping[str, float]) -> Fusion:
        """Turn ratios into weights."""
        terms = {
            name: term.model_copy(
                update={
                    "weight": self.unit * ratios[name] / self.spread[name],
                    "offset": offsets.get(name, 0.0),
                }
            )
            for name, term in self.current.terms.items()
            if name in self.spread
        }
        made = Fusion(formula=self.formula, terms={**self.current.terms, **terms})
        return rescaled(made, self.lists, self.current)

    def anchors(self) -> list[dict[str, float]]:
        """Give the points to begin with: all alike, and each task far above the others."""
        names = list(self.spread)[1:]
        points = [dict.fromkeys(names, 0.0), dict.fromkeys(names, -_DECADES)]
        points += [{n: _DECADES if n == name else 0.0 for n in names} for name in names]
        found = [{f"ratio.{n}": v for n, v in point.items()} for point in points]
        return found if names and self.formula != "multiplicative" else []


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Weights, and what each task is worth with them."""

    fusion: Fusion
    values: Mapping[str, float]


def within(lists: Lists, values: np.ndarray) -> float:
    """Give the standard deviation of values [N] around their list's mean; 0 without rows."""
    if not values.size:
        return 0.0
    size = np.bincount(lists.request)
    mean = np.bincount(lists.request, values) / size
    return float(np.sqrt(np.mean((values - mean[lists.request]) ** 2)))


def search_front(
    study: optuna.Study,
    lists: Lists,
    space: Space,
    k: int,
    budget: Budget,
    seed: int,
    on_trial: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Point]:
    """Search by NSGA-II (Deb et al., 2002); give the front, by the first task's value, best first."""
    assert space.formula in FORMULAS, space.formula
    names = [task.name for task in lists.tasks]

    def evaluate(trial: optuna.Trial) -> list[float]:
        values = list_values(lists, space.suggest(trial), k)
        return [values[name].mean for name in names]

    def sampler(number: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.NSGAIISampler(population_size=_POPULATION, seed=number % 2**32)

    search(study, sampler, seed, budget, evaluate, on_trial, first=space.anchors())
    points = []
    for trial in complete(study) and study.best_trials:
        fusion = space.suggest(optuna.trial.FixedTrial(trial.params))  # type: ignore[arg-type]
        points.append(Point(fusion=fusion, values=dict(zip(names, trial.values, strict=True))))
    distinct = {tuple(point.values.values()): point for point in points}
    return [distinct[key] for key in sorted(distinct, reverse=True)]


def knee(front: Sequence[Point], current: Mapping[str, float]) -> Point:
    """Give the point nearest to the best of every task, each scaled to the range of those it is among.

    Points that are nowhere below the current values come before all others, if there are any.
    """
    safe = [p for p in front if all(p.values[task] >= value for task, value in current.items())]
    chosen = safe or list(front)
    return chosen[nearest_to_ideal([list(point.values.values()) for point in chosen])]


def rescaled(fusion: Fusion, lists: Lists, current: Fusion) -> Fusion:
    """Give the heads' part of a sum the width inside lists that the current one has, beside the same sources.

    So the sources act as they do now, as on a server that is sent these weights, and `[policy] temperature`
    means the same. A product has a width of its own: there the sources' weights follow it.
    """
    if fusion.formula != "additive":
        return with_share(fusion, lists, current)
    made, ratio = fusion.with_sources(current.sources), _wider(current, fusion, lists)
    terms = {
        name: term.model_copy(update={"weight": float(f"{term.weight * ratio:.6g}")})
        for name, term in fusion.terms.items()
    }
    return made if ratio == 1.0 else made.model_copy(update={"terms": terms})


def with_share(fusion: Fusion, lists: Lists, own: Fusion) -> Fusion:
    """Give a score the sources of a bundle's own one, as wide beside its heads as they are there."""
    sources, ratio = own.sources, _wider(fusion, own, lists)
    scaled = {name: weight * ratio for name, weight in sources.weights.items()}
    return fusion.with_sources(sources if ratio == 1.0 else sources.model_copy(update=scaled))


def _wider(one: Fusion, other: Fusion, lists: Lists) -> float:
    """Give the ratio of the widths of two scores' heads inside lists; 1 where either has no width."""
    widths = [within(lists, f.with_sources(NO_SOURCES).score(lists.predictions)) for f in (one, other)]
    return widths[0] / widths[1] if all(widths) else 1.0
