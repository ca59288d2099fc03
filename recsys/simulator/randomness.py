"""Random numbers of the shop: named streams of one seed, and noise that is a function of its keys."""

from enum import IntEnum

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from recsys.simulator.dials import FloatArray, IntArray


class Stream(IntEnum):
    """The independent random streams of one seed; with a day number, one stream per day."""

    WORLD = 0
    ITEMS = 1
    USERS = 2
    WITHDRAWALS = 3
    LOG = 4


def stream(seed: int, name: Stream, day: int = 0) -> np.random.Generator:
    """Open a stream: the same seed, name and day give the same numbers, whatever else was drawn."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(name), day)))


def keyed_normal(seed: int, salt: int, *keys: IntArray) -> FloatArray:
    """Return standard normal values [N] that are a function of their keys [N]: equal keys, equal values.

    Source: the mixing function of splitmix64 (Steele et al., OOPSLA 2014).
    """
    state = np.full(keys[0].shape, (seed * 1_000_003 + salt) % 2**63, dtype=np.uint64)
    for key in keys:
        state = _mix(state ^ key.astype(np.uint64))
    uniform = ((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    normal: FloatArray = ndtri(uniform)
    return normal


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
