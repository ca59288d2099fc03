"""Logged lists and a target policy -> its value by every estimator, how sure, and whether to trust it."""

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from recsys.errors import ConfigError, DataError
from recsys.metrics.effect import Defined, Effect
from recsys.metrics.inference import DEFAULT_REPLICATES, MIN_DEFINED, difference_effect
from recsys.offpolicy.estimators import Weights, estimator_terms
from recsys.offpolicy.intervals import UnitSums, bernstein_interval, bootstrap_values, percentile_interval
from recsys.offpolicy.logged import LoggedLists
from recsys.offpolicy.support import MIN_EFFECTIVE, MIN_POSITIVES, Support, problems_of, support_of
from recsys.offpolicy.target import TargetPolicy

BOOTSTRAP = "bootstrap"
BERNSTEIN = "empirical Bernstein"


class Estimate(BaseModel):
    """One estimator's value of a policy: reward per list; None where it is not defined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Defined
    low: Defined
    high: Defined


class PolicyValue(BaseModel):
    """What a target policy earns per list, by every estimator that the log allows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimates: dict[str, Estimate]
    interval: str
    """`bootstrap` of whole units; `empirical Bernstein` where effective lists or positives are few."""
    level: float
    support: Support
    left_out: dict[str, int]
    problems: tuple[str, ...]
    """Why not to trust it; empty where one may."""

    @property
    def trustworthy(self) -> bool:
        """Tell whether support and agreement are enough."""
        return not self.problems

    @property
    def stamp(self) -> str:
        """Give the warning to print, or nothing."""
        return "" if self.trustworthy else "NOT TRUSTWORTHY: " + "; ".join(self.problems)


class PolicyComparison(BaseModel):
    """Two target policies on the same logged lists."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    a: PolicyValue
    b: PolicyValue
    effects: dict[str, Effect]
    """Estimator -> B minus A, on the same draws of units."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Say why not to trust the differences."""
        return (*(f"A: {p}" for p in self.a.problems), *(f"B: {p}" for p in self.b.problems))


def evaluate(
    logged: LoggedLists,
    target: TargetPolicy,
    *,
    generator: np.random.Generator,
    clip: float | None = None,
    replicates: int = DEFAULT_REPLICATES,
    level: float = 0.95,
) -> PolicyValue:
    """Estimate what a target policy earns per list.

    Args: clip: largest weight of `clipped_ips`, and where `switch_dr` trusts the model; None: the root of the
    number of lists. level: of each interval.
    Raises: DataError when shapes differ; ConfigError on replicates < 1 or a level outside (0, 1).
    """
    return _Evaluated(logged, target, clip, replicates, level, generator).value()


def compare(
    logged: LoggedLists,
    a: TargetPolicy,
    b: TargetPolicy,
    *,
    seed: int,
    clip: float | None = None,
    replicates: int = DEFAULT_REPLICATES,
    level: float = 0.95,
) -> PolicyComparison:
    """Compare what two targets earn per list, by every estimator that both allow. Raises: as `evaluate`."""
    sides = [
        _Evaluated(logged, target, clip, replicates, level, np.random.default_rng(seed)) for target in (a, b)
    ]
    effects = {
        name: difference_effect(
            name,
            np.stack([np.append(side.sums[name].value(), side.draws[name]) for side in sides], axis=1),
            logged.num_units,
            level,
            rows=len(logged.reward),
        )
        for name in sides[0].sums
        if name in sides[1].sums
    }
    return PolicyComparison(a=sides[0].value(), b=sides[1].value(), effects=effects)


class _Evaluated:
    """A target's sums by unit and their bootstrap draws."""

    def __init__(
        self,
        logged: LoggedLists,
        target: TargetPolicy,
        clip: float | None,
        replicates: int,
        level: float,
        generator: np.random.Generator,
    ) -> None:
        if replicates < 1 or not 0 < level < 1:
            raise ConfigError(
                f"replicates is {replicates} and level {level}; use at least 1 and a level in (0, 1)"
            )
        weights = Weights.of(logged, target, clip)
        if not weights.drawn.any():
            raise DataError("every place of the logged lists is pinned: no policy chose anything")
        terms = estimator_terms(weights, places_apart=target.places_apart)
        units = logged.num_units
        self.level = level
        self.left_out: Mapping[str, int] = logged.left_out
        self.support = support_of(weights, units)
        self.sums = {name: UnitSums.of(part, logged.unit, units) for name, part in terms.items()}
        self.draws = bootstrap_values(self.sums, replicates, generator)

    def value(self) -> PolicyValue:
        few = self.support.effective < MIN_EFFECTIVE or self.support.effective_positives < MIN_POSITIVES
        estimates = {}
        for name, sums in self.sums.items():
            low, high = (
                bernstein_interval(sums, self.level)
                if few
                else percentile_interval(self.draws[name], self.level, MIN_DEFINED)
            )
            estimates[name] = Estimate(value=sums.value(), low=low, high=high)
        return PolicyValue(
            estimates=estimates,
            interval=BERNSTEIN if few else BOOTSTRAP,
            level=self.level,
            support=self.support,
            left_out=dict(self.left_out),
            problems=problems_of(self.support, self.draws),
        )
