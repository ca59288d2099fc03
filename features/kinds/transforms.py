"""What several kinds do to a number, and the constants of it."""

import numpy as np

SHRINKAGE = 20.0
"""Rates and means of few observations move towards the overall one as if this many had been seen of it."""
CLIP = 5.0
"""Standardised numbers are cut here: one absurd counter must not own the first layer."""


def signed_log(x: np.ndarray) -> np.ndarray:
    """Give sign(x)·log(1 + |x|)."""
    value: np.ndarray = np.sign(x) * np.log1p(np.abs(x))
    return value
