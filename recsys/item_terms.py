"""What an item's own record says beside a head's logit: a small linear term, fitted on a day not trained on.

A head learns from days that end before the calibration day, and spreads what is known of an item over many
layers. The term gives each item's rates and means a weight of their own, held near 0 by a normal prior; with
the slope and the intercept of Platt's sigmoid it is one logistic regression.

Shapes: N rows, I items, F numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from recsys.calibration import (
    MIN_SLOPE,
    Calibrator,
    Platt,
    PlattItems,
    fit_platt,
    has_both_classes,
    is_constant,
    sigmoid,
    smoothed_targets,
    used_rows,
)
from recsys.metrics.columns import Mask, Rows, Vector, checked_binary, effective_rows

PRIOR_PRECISION = 1000.0
"""Of each weight, in rows: its standard deviation beforehand is 1 / sqrt(1000), per standard deviation of the
number. So a day of a thousand rows moves it little, and one of a million takes what it finds."""
_PIECE_ROWS = 262_144
_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemNumbers:
    """Numbers of items, and which item each row [N] shows."""

    names: tuple[str, ...]
    values_IF: npt.NDArray[np.float32]
    """As the encoder gives them: standardised, 0 where not known."""
    row_N: npt.NDArray[np.int64]

    def take(self, chosen: Mask) -> Self:
        """Select rows by a mask [N]."""
        return type(self)(names=self.names, values_IF=self.values_IF, row_N=self.row_N[chosen])

    def of_rows(self, part: slice = slice(None)) -> Vector:
        """Give the numbers [n, F] of consecutive rows."""
        found: Vector = self.values_IF[self.row_N[part]].astype(np.float64)
        return found

    def term(self, weights: Mapping[str, float]) -> npt.NDArray[np.float32]:
        """Give each row's term [N]: its item's numbers times their weights, of those that have one."""
        weight_F = np.array([weights.get(name, 0.0) for name in self.names], np.float32)
        term_N: npt.NDArray[np.float32] = (self.values_IF @ weight_F)[self.row_N]
        return term_N

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put the rows of some days one behind the other; all have the same numbers."""
        sizes = [len(part.values_IF) for part in parts]
        starts = np.cumsum([0, *sizes[:-1]])
        return cls(
            names=parts[0].names,
            values_IF=np.concatenate([part.values_IF for part in parts]),
            row_N=np.concatenate([part.row_N + start for part, start in zip(parts, starts, strict=True)]),
        )


def item_weights(calibrator: Calibrator) -> Mapping[str, float]:
    """Give what a calibrator adds to a logit for each of the item's numbers, by name; often nothing."""
    return calibrator.items if isinstance(calibrator, PlattItems) else {}


def item_terms(calibration: Mapping[str, Calibrator]) -> dict[str, Mapping[str, float]]:
    """Give the same of every task."""
    return {task: item_weights(calibrator) for task, calibrator in calibration.items()}


def fit_platt_items(
    logit: npt.ArrayLike, label: npt.ArrayLike, items: ItemNumbers, weight: npt.ArrayLike | None = None
) -> Platt | PlattItems:
    """Fit sigmoid(a * (logit + items' numbers times their weights) + b), to the targets of `fit_platt`.

    It is `fit_platt` itself where that fits no slope of its own: with fewer than MIN_ROWS_PER_CLASS effective
    rows of either class, equal logits, or a slope at its least.

    Args: as `fit_platt`; items: of the same rows [N].
    Raises: as `fit_platt`.
    """
    given = checked_binary(label, logit, weight)
    rows, items = used_rows(given), items.take(given.weight > 0)
    plain = fit_platt(rows.prediction, rows.label, rows.weight)
    fits_slope = has_both_classes(rows.label, rows.weight) and not is_constant(rows.prediction)
    if not items.names or not fits_slope or plain.a <= MIN_SLOPE:
        return plain
    theta = _newton(_Regression.of(rows, items), np.array([plain.a, *np.zeros(len(items.names)), plain.b]))
    slope = float(theta[0])
    if slope <= MIN_SLOPE:
        return plain
    weights = zip(items.names, (theta[1:-1] / slope).tolist(), strict=True)
    return PlattItems(a=slope, b=float(theta[-1]), items=dict(weights))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Regression:
    """A penalised logistic regression on logit, numbers and 1, read a piece at a time."""

    rows: Rows
    items: ItemNumbers
    target: Vector
    share: Vector
    """Of the weight; sums to 1."""
    penalty: Vector
    """Of each parameter, as a share of the effective rows."""

    @classmethod
    def of(cls, rows: Rows, items: ItemNumbers) -> Self:
        highest, lowest = smoothed_targets(rows)
        prior = PRIOR_PRECISION / effective_rows(rows.weight)
        return cls(
            rows=rows,
            items=items,
            target=np.where(rows.label == 1, highest, lowest),
            share=rows.weight / rows.weight.sum(),
            penalty=np.array([0.0, *np.full(len(items.names), prior), 0.0]),
        )

    def loss(self, theta: Vector) -> float:
        """Give the penalised log loss."""
        found = 0.5 * float(self.penalty @ theta**2)
        for part, design in self._pieces():
            z = design @ theta
            found += float(self.share[part] @ (np.logaddexp(0, z) - self.target[part] * z))
        return found

    def derivatives(self, theta: Vector) -> tuple[Vector, npt.NDArray[np.float64]]:
        """Give gradient and curvature of the loss."""
        gradient, curvature = self.penalty * theta, np.diag(self.penalty)
        for part, design in self._pieces():
            probability = sigmoid(design @ theta)
            gradient = gradient + design.T @ (self.share[part] * (probability - self.target[part]))
            spread = self.share[part] * probability * (1 - probability)
            curvature = curvature + (design * spread[:, None]).T @ design
        return gradient, curvature

    def _pieces(self) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
        for start in range(0, self.share.size, _PIECE_ROWS):
            part = slice(start, start + _PIECE_ROWS)
            logit = self.rows.prediction[part]
            yield part, np.column_stack([logit, self.items.of_rows(part), np.ones(logit.size)])


def _newton(of: _Regression, theta: Vector) -> Vector:
    """Minimise the loss: it is convex, and a step is halved until it does not rise."""
    for _ in range(_STEPS):
        gradient, curvature = of.derivatives(theta)
        if np.abs(gradient).max() < 1e-10:
            break
        step = np.linalg.solve(curvature + 1e-12 * np.eye(theta.size), gradient)
        start = of.loss(theta)
        lengths = (0.5**halvings for halvings in range(40))
        length = next((length for length in lengths if of.loss(theta - length * step) <= start), 0.0)
        if not length:
            break
        theta = theta - length * step
    return theta
