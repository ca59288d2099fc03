"""Turn head outputs into calibrated predictions: arrays in, arrays out; fitted on a day not trained on.

A calibrator says in `reads` what it takes: the head's "logit" (Platt) or its "prediction", a probability or
a value (isotonic, affine, identity). All arithmetic is float64; float32 comes back as float32, all else
as float64. Importing this module loads neither scipy nor sklearn: fitting does.
"""

from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recsys.errors import ConfigError, DataError
from recsys.metrics.columns import Rows, Vector, checked, checked_binary, effective_rows

MIN_ROWS_PER_CLASS = 50
"""With fewer effective rows of either class a slope is noise: `fit_platt` then fits the intercept alone."""

MIN_SLOPE = 1e-3
"""A fitted slope never falls below this, so calibration keeps a head's order even on a bad day."""

FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Input = Literal["logit", "prediction"]


class _Frozen(BaseModel):
    """A value that travels in the bundle's manifest; JSON keeps every bit of its numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Identity(_Frozen):
    """Leave predictions as they are."""

    kind: Literal["identity"] = "identity"
    reads: ClassVar[Input] = "prediction"

    def apply(self, prediction: npt.ArrayLike) -> FloatArray:
        """Return prediction [...] unchanged, as float32 or float64."""
        values = np.asarray(prediction)
        return _as_given(values.astype(np.float64), values)


class SamplingShift(_Frozen):
    """Shift a logit by the rate at which negatives were kept: sigmoid(logit + b); nothing is fitted."""

    kind: Literal["sampling_shift"] = "sampling_shift"
    b: float
    reads: ClassVar[Input] = "logit"

    def apply(self, logit: npt.ArrayLike) -> FloatArray:
        """Return probabilities [...] of logit [...]; float32 in, float32 out, else float64."""
        values = np.asarray(logit)
        return _as_given(sigmoid(values.astype(np.float64) + self.b), values)


class Platt(_Frozen):
    """Map a logit to a probability: sigmoid(a * logit + b), a > 0."""

    kind: Literal["platt"] = "platt"
    a: float = Field(gt=0)
    b: float
    reads: ClassVar[Input] = "logit"

    def apply(self, logit: npt.ArrayLike) -> FloatArray:
        """Return probabilities [...] of logit [...]; float32 in, float32 out, else float64."""
        values = np.asarray(logit)
        return _as_given(sigmoid(self.a * values.astype(np.float64) + self.b), values)


class PlattItems(_Frozen):
    """Map a logit that has a term of the item to a probability: sigmoid(a * (logit + term) + b), a > 0.

    The ranker of a bundle adds the term (`Ranker.with_item_terms`), so `apply` is given logits that have it.
    """

    kind: Literal["platt_items"] = "platt_items"
    a: float = Field(gt=0)
    b: float
    items: dict[str, float]
    """The term: what each of the item's numbers weighs, by the feature's name."""
    reads: ClassVar[Input] = "logit"

    def apply(self, logit: npt.ArrayLike) -> FloatArray:
        """Return probabilities [...] of logit [...]; float32 in, float32 out, else float64."""
        return Platt(a=self.a, b=self.b).apply(logit)


class PlattParent(_Frozen):
    """Map logits of a child and its parent to a probability: sigmoid(a * logit + parent * the parent's + b).

    Neither weight is negative: what makes the parent likelier never lowers the child. `apply` is given what
    `joined` makes of both logits.
    """

    kind: Literal["platt_parent"] = "platt_parent"
    a: float = Field(gt=0)
    parent: float = Field(ge=0)
    b: float
    reads: ClassVar[Input] = "logit"

    def joined(self, logit: npt.ArrayLike, parent: npt.ArrayLike) -> FloatArray:
        """Weigh logit [...] and the parent's [...]; float32 in, float32 out, else float64."""
        values = np.asarray(logit)
        other = self.parent * np.asarray(parent).astype(np.float64)
        return _as_given(self.a * values.astype(np.float64) + other, values)

    def apply(self, joined: npt.ArrayLike) -> FloatArray:
        """Return probabilities [...] of joined logits [...]; float32 in, float32 out, else float64."""
        return SamplingShift(b=self.b).apply(joined)


class Isotonic(_Frozen):
    """Map a prediction through knots, straight between, flat outside: x rising, y never falling."""

    kind: Literal["isotonic"] = "isotonic"
    x: tuple[float, ...] = Field(min_length=1)
    y: tuple[float, ...] = Field(min_length=1)
    reads: ClassVar[Input] = "prediction"

    @model_validator(mode="after")
    def _check_knots(self) -> "Isotonic":
        if len(self.x) != len(self.y):
            raise ValueError(f"x has {len(self.x)} knots and y {len(self.y)}; they come in pairs")
        if (np.diff(self.x) <= 0).any() or (np.diff(self.y) < 0).any():
            raise ValueError("knots must have x rising and y never falling; fit them with fit_isotonic")
        return self

    @cached_property
    def knots(self) -> tuple[Vector, Vector]:
        """Return (x, y) as arrays, made once: a request must not pay for it."""
        return np.array(self.x), np.array(self.y)

    def apply(self, prediction: npt.ArrayLike) -> FloatArray:
        """Return calibrated predictions [...]; float32 in, float32 out, else float64."""
        values = np.asarray(prediction)
        return _as_given(np.interp(values.astype(np.float64), *self.knots), values)


class Affine(_Frozen):
    """Map a value: scale * prediction + offset, clipped to [low, high], scale > 0."""

    kind: Literal["affine"] = "affine"
    scale: float = Field(gt=0)
    offset: float
    low: float
    high: float
    reads: ClassVar[Input] = "prediction"

    @model_validator(mode="after")
    def _check_range(self) -> "Affine":
        if self.low >= self.high:
            raise ValueError(f"low is {self.low} and high {self.high}; low must be below high")
        return self

    def apply(self, prediction: npt.ArrayLike) -> FloatArray:
        """Return calibrated values [...] in [low, high]; float32 in, float32 out, else float64."""
        values = np.asarray(prediction)
        mapped = np.clip(self.scale * values.astype(np.float64) + self.offset, self.low, self.high)
        return _as_given(mapped, values)


Calibrator = Annotated[
    Identity | SamplingShift | Platt | PlattItems | PlattParent | Isotonic | Affine,
    Field(discriminator="kind"),
]


def is_fitted(calibrator: Calibrator) -> bool:
    """Tell a calibrator that was fitted on labels from one that stands for none."""
    return not isinstance(calibrator, Identity | SamplingShift)


def fit_platt(logit: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> Platt:
    """Fit sigmoid(a * logit + b) by Newton's method to Platt's smoothed targets.

    Targets are (P + 1) / (P + 2) for positive rows and 1 / (M + 2) for negative ones, P and M the weight of
    either class: a row of weight k is k rows. a stays at or above MIN_SLOPE. With fewer than
    MIN_ROWS_PER_CLASS `effective_rows` of either class (or none), or with equal logits throughout, a is 1 and
    only b is fitted.

    Args: logit [N], finite; label [N] in {0, 1}; weight [N] >= 0, in rows, or None for ones.
    Raises: DataError on a NaN, a label that is neither 0 nor 1, no rows, or unequal lengths.
    Source: Platt 1999; Lin, Lin & Weng, Machine Learning 2007.
    """
    rows = used_rows(checked_binary(label, logit, weight))
    highest, lowest = smoothed_targets(rows)
    target = np.where(rows.label == 1, highest, lowest)
    if not has_both_classes(rows.label, rows.weight) or is_constant(rows.prediction):
        return Platt(a=1.0, b=_intercept(rows.prediction, target, rows.weight))
    slope, intercept = _newton(rows.prediction, target, rows.weight)
    if slope < MIN_SLOPE:
        return Platt(a=MIN_SLOPE, b=_intercept(MIN_SLOPE * rows.prediction, target, rows.weight))
    return Platt(a=slope, b=intercept)


def fit_isotonic(
    prediction: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Isotonic:
    """Fit the best never-falling map by least squares (pool adjacent violators, sklearn's).

    Needs more rows than Platt (thousands of positives); gives exactly 0 or 1 where an end holds one class.

    Args: prediction [N], finite; label [N], finite; weight [N] >= 0 or None.
    Raises: DataError on a NaN, no rows, or unequal lengths.
    """
    from sklearn.isotonic import IsotonicRegression

    rows = checked(label, prediction, weight)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(rows.prediction, rows.label, rows.weight)
    y = np.maximum.accumulate(fitted.y_thresholds_)
    return Isotonic(x=tuple(fitted.X_thresholds_.tolist()), y=tuple(y.tolist()))


def fit_isotonic_probability(
    prediction: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Isotonic:
    """Fit `fit_isotonic` to labels in {0, 1} and keep its ends inside (0, 1), as Platt's targets are.

    An end of the scores that held one class gives Platt's target of that class: one day cannot show that
    something never happens.

    Args and Raises: as `fit_platt`.
    """
    rows = checked_binary(label, prediction, weight)
    highest, lowest = smoothed_targets(rows)
    fitted = fit_isotonic(rows.prediction, rows.label, rows.weight)
    bounded = np.clip(fitted.y, lowest, highest)
    return Isotonic(x=fitted.x, y=tuple(bounded.tolist()))


def fit_affine(
    prediction: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    low: float,
    high: float,
    weight: npt.ArrayLike | None = None,
) -> Affine:
    """Fit scale and offset by least squares, for values in [low, high].

    scale stays at or above MIN_SLOPE. With equal predictions throughout it is 1 and only offset is fitted.

    Args: prediction [N] and label [N], finite; weight [N] >= 0 or None; low < high, the scale's ends.
    Raises: DataError on a NaN, no rows, or unequal lengths; ConfigError when low >= high.
    """
    if not low < high:
        raise ConfigError(f"low is {low} and high {high}; low must be below high")
    rows = used_rows(checked(label, prediction, weight))
    mean_prediction = float(np.average(rows.prediction, weights=rows.weight))
    mean_label = float(np.average(rows.label, weights=rows.weight))
    centred = rows.prediction - mean_prediction
    covariance = float(np.average(centred * (rows.label - mean_label), weights=rows.weight))
    variance = float(np.average(np.square(centred), weights=rows.weight))
    scale = 1.0 if is_constant(rows.prediction) else max(covariance / variance, MIN_SLOPE)
    return Affine(scale=scale, offset=mean_label - scale * mean_prediction, low=low, high=high)


def has_both_classes(label: Vector, weight: Vector) -> bool:
    """Say whether each class has the effective rows [N] that a slope takes: MIN_ROWS_PER_CLASS."""
    classes = (weight[label == 1], weight[label == 0])
    # A sum of weights that are all alike may fall short by rounding.
    return all(effective_rows(rows) >= MIN_ROWS_PER_CLASS - 1e-6 for rows in classes)


def correct_sampling(logit: npt.ArrayLike, rate: npt.ArrayLike) -> FloatArray:
    """Undo negative down-sampling: logit + log(rate), the logit had every negative been kept.

    Args: logit [...]; rate, one or broadcast to logit: the share of negatives kept, in (0, 1].
    Raises: DataError naming the first rate outside (0, 1].
    Source: He et al., ADKDD 2014: q = p / (p + (1 - p) / rate).
    """
    values = np.asarray(logit)
    kept = np.asarray(rate, dtype=np.float64)
    wrong = ~((kept > 0) & (kept <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"sampling rate at row {row} is {kept.flat[row]}; it is a share in (0, 1]")
    return _as_given(values.astype(np.float64) + np.log(kept), values)


def keep_child_below_parent(child: npt.ArrayLike, parent: npt.ArrayLike) -> FloatArray:
    """Return min(child, parent) [...]: a purchase is never likelier than its click.

    Args: child and parent, calibrated probabilities of one shape; a float32 child gives float32.
    Raises: DataError when the shapes differ.
    """
    values = np.asarray(child)
    limit = np.asarray(parent)
    if values.shape != limit.shape:
        raise DataError(f"child has shape {values.shape} and parent {limit.shape}; pass the same rows")
    return _as_given(np.minimum(values.astype(np.float64), limit.astype(np.float64)), values)


def smoothed_targets(rows: Rows) -> tuple[float, float]:
    """Give Platt's targets of a positive and of a negative row: (P + 1) / (P + 2) and 1 / (M + 2)."""
    positives = float(rows.weight[rows.label == 1].sum())
    negatives = float(rows.weight[rows.label == 0].sum())
    return (positives + 1) / (positives + 2), 1 / (negatives + 2)


def _newton(logit: Vector, target: Vector, weight: Vector) -> tuple[float, float]:
    """Minimise the weighted log loss of sigmoid(a * logit + b) against target; return (a, b)."""
    (slope,), intercept = fit_slopes(logit[:, None], target, weight)
    return slope, intercept


def fit_slopes(logit: Vector, target: Vector, weight: Vector) -> tuple[tuple[float, ...], float]:
    """Minimise the weighted log loss of sigmoid(logit @ slopes + b) against target; return (slopes, b).

    Damped Newton on standardised logits: convex, and targets inside (0, 1) keep the minimum finite.

    Args: logit [N, K], no column constant; target [N] inside (0, 1); weight [N] > 0.
    """
    centre, spread = logit.mean(axis=0), logit.std(axis=0)
    design = np.column_stack([(logit - centre) / spread, np.ones(len(logit))])
    share = weight / weight.sum()
    theta = np.array([*np.zeros(logit.shape[1]), _log_odds(float(share @ target))])
    for _ in range(100):
        probability = sigmoid(design @ theta)
        gradient = design.T @ (share * (probability - target))
        if np.abs(gradient).max() < 1e-12:
            break
        curvature = (design * (share * probability * (1 - probability))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-12 * np.eye(theta.size), gradient)
        theta = theta - _step_length(design, target, share, theta, step) * step
    slopes = theta[:-1] / spread
    return tuple(slopes.tolist()), float(theta[-1] - slopes @ centre)


def _step_length(design: Vector, target: Vector, share: Vector, theta: Vector, step: Vector) -> float:
    """Halve the Newton step until the loss does not rise; 0 when rounding leaves nothing to gain."""

    def loss(at: Vector) -> float:
        z = design @ at
        return float(share @ (np.logaddexp(0, z) - target * z))

    start = loss(theta)
    lengths = (0.5**halvings for halvings in range(40))
    return next((length for length in lengths if loss(theta - length * step) <= start), 0.0)


def _intercept(logit: Vector, target: Vector, weight: Vector) -> float:
    """Return the b whose mean of sigmoid(logit + b) is the mean target: rising in b, so bracketed."""
    from scipy.optimize import brentq

    share = weight / weight.sum()
    mean_target = float(share @ target)
    wanted = _log_odds(mean_target)

    def excess(b: float) -> float:
        return float(share @ sigmoid(logit + b)) - mean_target

    return float(brentq(excess, wanted - logit.max() - 1, wanted - logit.min() + 1, xtol=1e-12))


def used_rows(rows: Rows) -> Rows:
    """Drop the rows that weigh nothing."""
    used = rows.weight > 0
    return Rows(label=rows.label[used], prediction=rows.prediction[used], weight=rows.weight[used])


def is_constant(values: Vector) -> bool:
    """Say whether values differ by rounding alone, so that no slope can be read off them."""
    return bool(np.ptp(values) <= 1e-9 * (1 + np.abs(values).max()))


def sigmoid(z: Vector) -> Vector:
    """Return 1 / (1 + exp(-z)) without overflow, exact in both tails."""
    probability: Vector = np.exp(-np.logaddexp(0, -z))
    return probability


def _log_odds(probability: float) -> float:
    """Return log(p / (1 - p)) of a probability inside (0, 1)."""
    return float(np.log(probability) - np.log1p(-probability))


def _as_given(result: Vector, given: npt.NDArray[np.generic]) -> FloatArray:
    """Return result as float32 when that is what came in, else as float64."""
    return result.astype(np.float32) if given.dtype == np.float32 else result
