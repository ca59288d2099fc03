"""What the parent says of a child beside its own logit: two weights, fitted on a day not trained on.

A head with few positives learns its part, P(child | parent), with much noise, and so scatters the rows of a
list. Its parent has many times as many positives. How much of either is worth believing, a day that was not
learned tells: both logits and a constant are one logistic regression, no weight below 0 (stacking: Breiman,
Machine Learning 1996).
"""

import numpy as np
import numpy.typing as npt

from recsys.calibration import (
    MIN_SLOPE,
    Platt,
    PlattParent,
    fit_platt,
    fit_slopes,
    has_both_classes,
    is_constant,
    smoothed_targets,
    used_rows,
)
from recsys.errors import DataError
from recsys.metrics.columns import checked_binary


def fit_platt_parent(
    logit: npt.ArrayLike, parent: npt.ArrayLike, label: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Platt | PlattParent:
    """Fit sigmoid(a * logit + c * parent + b), a > 0 and c >= 0, to the targets of `fit_platt`.

    It is `fit_platt` itself where that fits no slope of its own, where the parent's logit is constant or
    differs from the child's by a constant, and where the best c is not above 0. The child's weight is at
    least MIN_SLOPE times the parent's: among equal parents the child's order is kept.

    Args: as `fit_platt`; parent: the parent's logit of the same rows [N].
    Raises: as `fit_platt`.
    """
    given = checked_binary(label, logit, weight)
    other = np.asarray(parent, dtype=np.float64)
    if other.shape != given.prediction.shape:
        raise DataError(
            f"logit has shape {given.prediction.shape} and parent {other.shape}; pass the same rows"
        )
    rows, other = used_rows(given), other[given.weight > 0]
    own = rows.prediction
    plain = fit_platt(own, rows.label, rows.weight)
    nothing = any(is_constant(values) for values in (own, other, own - other))
    if nothing or not has_both_classes(rows.label, rows.weight):
        return plain
    highest, lowest = smoothed_targets(rows)
    target = np.where(rows.label == 1, highest, lowest)
    (a, c), b = fit_slopes(np.column_stack([own, other]), target, rows.weight)
    if c <= 0:
        return plain
    if a < MIN_SLOPE * c:
        least = fit_platt(other + MIN_SLOPE * own, rows.label, rows.weight)
        a, c, b = MIN_SLOPE * least.a, least.a, least.b
    return PlattParent(a=a, parent=c, b=b)
