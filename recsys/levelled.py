"""A calibrator whose level alone is fitted again, on rows that its head has learned.

A head that learns one pass more says something else in the mean, and a calibrator of before corrects what
the pass has corrected already: of days whose lists a model chose itself, half of the clicks are expected
then. What a pass over rows says of them in the mean is right also where the head has seen them. How far apart
it says they are is not: so slopes, knots and terms of items stay as an unseen day showed them.
"""

from collections.abc import Callable

import numpy as np

from recsys.calibration import (
    MIN_ROWS_PER_CLASS,
    Affine,
    Calibrator,
    Isotonic,
    Platt,
    PlattItems,
    PlattParent,
    has_both_classes,
    sigmoid,
    smoothed_targets,
    used_rows,
)
from recsys.calibrators import HeadRows
from recsys.item_terms import item_weights
from recsys.metrics.columns import Rows, Vector, effective_rows
from recsys.tasks import TaskSpec

_LEVEL_ENDS = 30.0
"""No level is moved further, on the logit scale."""


def levelled(calibrator: Calibrator, rows: HeadRows, task: TaskSpec) -> Calibrator:
    """Move a calibrator so that its mean over rows [N] is that of their labels.

    It stays as it is where it stands for none, and where a probability has fewer than MIN_ROWS_PER_CLASS
    effective rows of a class, a value fewer such rows at all. Targets of probabilities are smoothed as in
    `fit_platt`. Values move by what their mean lacks, and stay inside the task's range: of those that reach
    an end of it the mean moves by less.
    """
    known = rows.known
    used = used_rows(Rows(label=known.label, prediction=known.prediction, weight=known.weight))
    if task.kind.probability:
        enough = has_both_classes(used.label, used.weight)
    else:
        enough = bool(used.label.size) and effective_rows(used.weight) >= MIN_ROWS_PER_CLASS
    if not enough:
        return calibrator
    if isinstance(calibrator, Platt | PlattItems | PlattParent):
        return _platt(calibrator, known)
    if isinstance(calibrator, Isotonic):
        if task.kind.probability:
            return _isotonic_probability(calibrator, used)
        return _isotonic(calibrator, used, task)
    if isinstance(calibrator, Affine):
        return calibrator.model_copy(update={"offset": calibrator.offset + _missing(calibrator, used)})
    return calibrator


def with_mean(probability: Vector, mean: float) -> Vector:
    """Move probabilities [N] inside (0, 1) by one step on the logit scale, so that they have a mean."""
    odds = np.log(probability) - np.log1p(-probability)
    moved = _level(lambda c: sigmoid(odds + c), np.ones(odds.size), mean)
    return sigmoid(odds + moved)


def _platt(calibrator: Platt | PlattItems | PlattParent, known: HeadRows) -> Calibrator:
    logit, weights = known.joined(calibrator), item_weights(calibrator)
    if weights and known.items is not None:
        logit = logit + known.items.term(weights)
    target = _mean_target(Rows(label=known.label, prediction=known.prediction, weight=known.weight))
    slope = 1.0 if isinstance(calibrator, PlattParent) else calibrator.a
    scaled = slope * logit + calibrator.b
    moved = _level(lambda c: sigmoid(scaled + c), known.weight, target)
    return calibrator.model_copy(update={"b": calibrator.b + moved})


def _isotonic_probability(calibrator: Isotonic, rows: Rows) -> Isotonic:
    x, y = calibrator.knots
    with np.errstate(divide="ignore"):  # what is said to be certain stays so
        odds = np.log(y) - np.log1p(-y)
    moved = _level(
        lambda c: np.interp(rows.prediction, x, sigmoid(odds + c)), rows.weight, _mean_target(rows)
    )
    # Of neighbours that differ in their last digit rounding may turn the order around.
    rising = np.maximum.accumulate(sigmoid(odds + moved))
    return Isotonic(x=calibrator.x, y=tuple(rising.tolist()))


def _isotonic(calibrator: Isotonic, rows: Rows, task: TaskSpec) -> Isotonic:
    y = np.clip(calibrator.knots[1] + _missing(calibrator, rows), task.low, task.high)
    return Isotonic(x=calibrator.x, y=tuple(y.tolist()))


def _missing(calibrator: Affine | Isotonic, rows: Rows) -> float:
    """Give the mean of what the labels are above what is said of them."""
    return float(np.average(rows.label - calibrator.apply(rows.prediction), weights=rows.weight))


def _mean_target(rows: Rows) -> float:
    highest, lowest = smoothed_targets(rows)
    return float(np.average(np.where(rows.label == 1, highest, lowest), weights=rows.weight))


def _level(said: Callable[[float], Vector], weight: Vector, target: float) -> float:
    """Find what makes the weighted mean of probabilities the target: it rises with the level."""
    from scipy.optimize import brentq

    def excess(level: float) -> float:
        return float(np.average(said(level), weights=weight)) - target

    if excess(-_LEVEL_ENDS) > 0 or excess(_LEVEL_ENDS) < 0:
        return 0.0
    return float(brentq(excess, -_LEVEL_ENDS, _LEVEL_ENDS, xtol=1e-12))
