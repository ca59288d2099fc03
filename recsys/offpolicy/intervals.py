"""How sure a value is: bootstrap draws of whole users, or an empirical-Bernstein bound.

Legend: R lists, U units (users or lists), B draws, P parts of an estimator.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.metrics.columns import IntVector, Vector
from recsys.offpolicy.estimators import Terms


@dataclass(frozen=True, slots=True)
class UnitSums:
    """An estimator's sums over the lists of each unit: numerator and denominator [U, P]."""

    numerator: Vector
    denominator: Vector

    @classmethod
    def of(cls, terms: Terms, unit: IntVector, num_units: int) -> "UnitSums":
        """Add up the terms [R, P] of each unit's lists."""
        return cls(*(_sum_by(part, unit, num_units) for part in (terms.numerator, terms.denominator)))

    def values(self, draws: Vector) -> Vector:
        """Give the estimate [B] where unit u counts draws [B, U] times; NaN where it is not defined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Vector = ((draws @ self.numerator) / (draws @ self.denominator)).sum(axis=1)
        return found

    def value(self) -> float:
        """Give the estimate of all units once; NaN where it is not defined."""
        return float(self.values(np.ones((1, len(self.numerator))))[0])

    def influence(self) -> Vector:
        """Give each unit's part [U]: their mean is the estimate, their spread its variance (delta method)."""
        total = self.denominator.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.numerator.sum(axis=0) / total
            part = (self.numerator - ratio * self.denominator) / total
        found: Vector = ratio.sum() + len(self.numerator) * part.sum(axis=1)
        return found


def bootstrap_values(
    estimators: Mapping[str, UnitSums], replicates: int, generator: np.random.Generator
) -> dict[str, Vector]:
    """Evaluate every estimator on the same draws of units, with replacement: [B] each."""
    found: dict[str, list[Vector]] = {name: [] for name in estimators}
    num_units = len(next(iter(estimators.values())).numerator)
    block = max(1, 4_000_000 // num_units)
    for start in range(0, replicates, block):
        count = min(block, replicates - start)
        drawn = generator.integers(num_units, size=(count, num_units))
        drawn += num_units * np.arange(count)[:, None]
        draws = np.bincount(drawn.ravel(), minlength=count * num_units).reshape(count, num_units)
        for name, sums in estimators.items():
            found[name].append(sums.values(draws.astype(np.float64)))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def percentile_interval(values: Vector, level: float, min_defined: float) -> tuple[float, float]:
    """Cut the tails off draws [B]; NaN where fewer than min_defined of them are defined."""
    defined = values[~np.isnan(values)]
    if defined.size < min_defined * values.size or not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def bernstein_interval(sums: UnitSums, level: float) -> tuple[float, float]:
    """Bound a mean of few units by their variance and range; NaN for fewer than two.

    The range is that of the units that were seen, so a weight that is yet to come is not covered.
    Source: Maurer & Pontil, COLT 2009, theorem 4, at half the error on each side.
    """
    values = sums.influence()
    if values.size < 2 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    bound = math.log(4.0 / (1.0 - level))
    half = math.sqrt(2.0 * float(values.var(ddof=1)) * bound / values.size)
    half += 7.0 * float(np.ptp(values)) * bound / (3.0 * (values.size - 1))
    mean = float(values.mean())
    return mean - half, mean + half


def _sum_by(part: Vector, unit: IntVector, num_units: int) -> Vector:
    columns = [np.bincount(unit, column, minlength=num_units) for column in part.T]
    return np.stack(columns, axis=1).astype(np.float64)
