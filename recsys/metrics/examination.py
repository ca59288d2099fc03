"""How likely each position of a list is looked at, read off a log."""

import numpy as np

from recsys.metrics.columns import IntVector, Vector

LEAST_EXAMINATION = 0.05
"""So that no label counts more than twenty times."""


def at_positions(curve: Vector, position: IntVector) -> Vector:
    """Give the chance of positions [N]; beyond the curve's last one it is that one's."""
    chance: Vector = curve[np.minimum(position, curve.size - 1)]
    return chance


def examination_curve(position: IntVector, label: Vector, expected: Vector, weight: Vector) -> Vector:
    """Estimate how likely each position is looked at, relative to the first that has rows: [P + 1].

    Observed over expected labels per position, made to never rise from a position to the next.

    Args: position [N] from 1 to P; label [N] >= 0; expected [N]: the row's label if its position were looked
        at, by any measure that does not know the position; ones for items that positions got by chance.
    """
    from sklearn.isotonic import IsotonicRegression

    size = int(position.max(initial=0)) + 1
    seen, wanted = (np.bincount(position, weight * values, minlength=size) for values in (label, expected))
    have = np.flatnonzero(wanted > 0)
    if have.size == 0 or seen.sum() == 0:
        return np.ones(size)
    fitted = IsotonicRegression(increasing=False, out_of_bounds="clip").fit(
        have, seen[have] / wanted[have], sample_weight=wanted[have]
    )
    curve = fitted.predict(np.arange(size))
    found: Vector = np.maximum(curve / max(curve[have[0]], 1e-12), LEAST_EXAMINATION)
    return np.minimum(found, 1.0)
