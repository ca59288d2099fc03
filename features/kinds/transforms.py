"""What several kinds do to a number, and the constants of it."""

import numpy as np

SHRINKAGE = 20.0
"""Pseudo-observations of the overall value that are added to every rate and mean."""
CLIP = 5.0
"""Standardised numbers are clipped here: one extreme counter must not dominate the first layer."""


def signed_log(x: np.ndarray) -> np.ndarray:
    """Give sign(x)·log(1 + |x|)."""
    value: np.ndarray = np.sign(x) * np.log1p(np.abs(x))
    return value
