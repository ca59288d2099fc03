"""Latency histograms: counts in fixed, log-spaced buckets, which add up over workers."""

from bisect import bisect_left

import numpy as np
import numpy.typing as npt

BOUNDS_S = tuple(float(f"{10 ** (k / 10 - 5):.3g}") for k in range(61))
"""Upper bounds of the buckets, ten a decade from 10 us to 10 s; one more bucket counts what is slower."""
NUM_BUCKETS = len(BOUNDS_S) + 1
# Of two neighbouring bounds; the first bucket is taken to be as wide as the others.
_RATIO = 10**0.1
Counts = npt.NDArray[np.int64]


def bucket_of(seconds: float) -> int:
    """Return the bucket that counts a duration."""
    return bisect_left(BOUNDS_S, seconds)


def quantile_s(counts: Counts, share: float) -> float:
    """Estimate a quantile, in seconds; it is off by less than a bucket, a quarter of its value.

    Args: counts: [NUM_BUCKETS], not all 0; share: in (0, 1].
    """
    cumulative = np.cumsum(counts)
    rank = share * cumulative[-1]
    bucket = int(np.searchsorted(cumulative, rank))
    if bucket == NUM_BUCKETS - 1:
        return BOUNDS_S[-1]
    below = cumulative[bucket] - counts[bucket]
    inside = (rank - below) / counts[bucket]
    return float(BOUNDS_S[bucket] * _RATIO ** (inside - 1))
