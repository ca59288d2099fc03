"""How likely each position of a list is looked at, read off a log."""

import numpy as np

from recsys.metrics.columns import IntVector, Vector

MOST_POWER = 2.0
"""At position ten a hundredth of the first one's chance, which LEAST_EXAMINATION cuts."""
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


def examination_power(position: IntVector, label: Vector, expected: Vector, weight: Vector) -> Vector:
    """Estimate the same by one number, position ** -power with 0 <= power <= MOST_POWER: [P + 1].

    By maximum likelihood, for few labels, which tell one number and not one per position. Labels count by
    Poisson's law with mean c · expected · position ** -power. At the best power the mean of log position over
    the labels is that over what is expected.

    Args: as `examination_curve`. Source of the law: Joachims et al., WSDM 2017.
    """
    from scipy.optimize import brentq

    size = int(position.max(initial=0)) + 1
    known = position >= 1
    far = np.log(np.maximum(position, 1))
    seen, wanted = np.where(known, weight * label, 0.0), np.where(known, weight * expected, 0.0)
    if not seen.sum() or not wanted.sum():
        return np.ones(size)
    goal = float(seen @ far / seen.sum())

    def above(power: float) -> float:
        share = wanted * np.exp(-power * far)
        return float(share @ far / share.sum()) - goal

    if above(0.0) <= 0:
        return np.ones(size)
    power = MOST_POWER if above(MOST_POWER) >= 0 else float(brentq(above, 0.0, MOST_POWER))
    curve: Vector = np.maximum(np.maximum(np.arange(size), 1.0) ** -power, LEAST_EXAMINATION)
    return curve
