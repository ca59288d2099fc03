"""The coin of a list, and how probable a prefix of it is on each side; derived in `recsys.policy`."""

import math
from dataclasses import dataclass, replace

import numpy as np

from recsys.policy.inputs import Floats, PolicyParameters
from recsys.policy.steps import Steps

UNIFORM_SLOTS = 10
"""The uniformly drawn item of a list stands in one of so many positions from the top."""
_SLOT_STREAM = 1 << 32
"""Beyond every position, so that the slot has random numbers of its own."""
_SMALLEST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixProbability:
    """The coin of a list, and the probability of the items shown so far, for either side of the coin."""

    explored: bool
    """Whether the coin came up "explore"."""
    log_greedy: float
    """log G; -inf when a greedy list would not begin with these items."""
    log_drawn: float
    """log D; -inf for a list that never explores."""
    log_waiting: float = -math.inf
    """log W: the slot of a uniform item is still below."""
    log_uniform: float = -math.inf
    """log U: it was above."""
    slot: int | None = None
    """Position from 0 of the uniform item, where the coin came up so."""


def flip_coin(parameters: PolicyParameters, number: float, seed: int) -> PrefixProbability:
    """Begin a list: nothing is shown yet, so the sides of the coin have their own probabilities."""
    uniform, epsilon = parameters.uniform_share, parameters.explore_share
    drawn = (1.0 - uniform) * epsilon
    slot = None
    if number >= 1.0 - uniform:
        slot = int(np.random.default_rng([seed, _SLOT_STREAM]).integers(UNIFORM_SLOTS))
    return PrefixProbability(
        explored=number < drawn,
        log_greedy=_log((1.0 - uniform) * (1.0 - epsilon)),
        log_drawn=_log(drawn),
        log_waiting=_log(uniform),
        slot=slot,
    )


def extend(
    prefix: PrefixProbability, steps: Steps, start: int, *, explores: bool
) -> tuple[Floats, PrefixProbability]:
    """Return the propensities [K] of a page, and the prefix with it."""
    size = len(steps.order)
    if not size:
        return np.ones(0), prefix
    may_be_uniform = prefix.log_waiting > -math.inf or prefix.log_uniform > -math.inf
    waiting, uniform = [0.0], [0.0]
    if may_be_uniform:
        waiting, uniform = _waiting_and_uniform(prefix, steps, start, explores=explores)
    if not explores:
        return np.ones(size), replace(prefix, log_waiting=_log(waiting[-1]), log_uniform=_log(uniform[-1]))
    log_drawn = prefix.log_drawn + np.cumsum(steps.log_drawn)
    log_greedy = np.where(np.logical_and.accumulate(steps.greedy), prefix.log_greedy, -np.inf)
    log_prefix = np.logaddexp(
        np.append(prefix.log_greedy, log_greedy), np.append(prefix.log_drawn, log_drawn)
    )
    if may_be_uniform:
        log_prefix = np.logaddexp(log_prefix, [_log(w + u) for w, u in zip(waiting, uniform, strict=True)])
    conditional = np.exp(np.minimum(0.0, log_prefix[1:] - log_prefix[:-1]))
    prefix = replace(
        prefix,
        log_greedy=float(log_greedy[-1]),
        log_drawn=float(log_drawn[-1]),
        log_waiting=_log(waiting[-1]),
        log_uniform=_log(uniform[-1]),
    )
    return np.maximum(conditional, _SMALLEST), prefix


def _waiting_and_uniform(
    prefix: PrefixProbability, steps: Steps, start: int, *, explores: bool
) -> tuple[list[float], list[float]]:
    """Return W and U before the page and after each of its places [K + 1]."""
    waiting, uniform = [math.exp(prefix.log_waiting)], [math.exp(prefix.log_uniform)]
    for place, (greedy, allowed) in enumerate(
        zip(steps.greedy.tolist(), steps.num_allowed.tolist(), strict=True), start
    ):
        here = waiting[-1] / (UNIFORM_SLOTS - place) if place < UNIFORM_SLOTS else waiting[-1]
        if not explores:
            greedy, allowed = True, 1
        uniform.append(uniform[-1] * greedy + here / allowed)
        waiting.append((waiting[-1] - here) * greedy if place + 1 < UNIFORM_SLOTS else 0.0)
    return waiting, uniform


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0.0 else -math.inf
