"""What a policy would do after the items of a list that another policy has shown: for off-policy values.

Legend: N candidates, K positions of the page.
"""

import numpy as np

from recsys.errors import DataError
from recsys.policy.inputs import Floats, Ints, PolicyInput, PolicyParameters
from recsys.policy.prefix import UNIFORM_SLOTS
from recsys.policy.steps import RemainingCandidates


def place_distributions(candidates: PolicyInput, parameters: PolicyParameters, order: Ints) -> Floats:
    """Give the probability [K, N] of each candidate at each place of a first page, given the items above it.

    Row k at `order[k]` is the propensity that `draw_ranking` would have logged; the product down to a place
    is the probability of that prefix. After items that the policy never shows, it goes on greedily.

    Args: order [K], candidates as they were shown, under the same rules and pins.
    Raises: DataError when an item stands in it twice, or a pinned one elsewhere than its pin says.
    """
    _check(candidates, order)
    remaining = RemainingCandidates(candidates, parameters)
    sides = _Sides.of(parameters)
    found = np.zeros((len(order), len(candidates.scores)))
    pinned = set(candidates.pins.values())
    for place, chosen in enumerate(order.tolist()):
        if chosen in pinned:
            found[place, chosen] = 1.0
            sides.pass_slot(place)
        else:
            found[place] = sides.step(remaining.logits(), place, chosen)
        remaining.place(chosen)
    return found


def _check(candidates: PolicyInput, order: Ints) -> None:
    if len(np.unique(order)) != len(order):
        raise DataError(f"a list shows a candidate twice: {order.tolist()}")
    # In a list that ran out of others, what is pinned further down moves up: only later is wrong.
    at = {candidate: position for position, candidate in candidates.pins.items()}
    late = [c for place, c in enumerate(order.tolist()) if place > at.get(c, place)]
    if late:
        raise DataError(
            f"candidate {late[0]} stands below its pin {at[late[0]]}; pass the list as it was shown"
        )


class _Sides:
    """The probability of each side of the coin, given the items shown so far."""

    def __init__(self, greedy: float, drawn: float, waiting: float) -> None:
        self.greedy, self.drawn, self.waiting, self.uniform = greedy, drawn, waiting, 0.0

    @classmethod
    def of(cls, parameters: PolicyParameters) -> "_Sides":
        """Begin before the first place."""
        uniform, epsilon = parameters.uniform_share, parameters.explore_share
        return cls((1.0 - uniform) * (1.0 - epsilon), (1.0 - uniform) * epsilon, uniform)

    def step(self, logits: Floats, place: int, chosen: int) -> Floats:
        """Give the distribution [N] at a place, and take in what stands there."""
        best, allowed = int(np.argmax(logits)), np.isfinite(logits)
        luce = np.exp(logits - logits[best])
        luce /= luce.sum()
        here = self._here(place)
        found: Floats = self.drawn * luce + (here / allowed.sum()) * allowed
        found[best] += self.greedy + self.waiting - here + self.uniform
        is_best = chosen == best
        self.uniform = self.uniform * is_best + here / allowed.sum() * allowed[chosen]
        self.waiting = (self.waiting - here) * is_best
        self.greedy, self.drawn = self.greedy * is_best, self.drawn * float(luce[chosen])
        self._normalise()
        return found

    def pass_slot(self, place: int) -> None:
        """Take in a place at which the policy had no choice."""
        here = self._here(place)
        self.waiting, self.uniform = self.waiting - here, self.uniform + here

    def _here(self, place: int) -> float:
        """Give the probability that the uniform item's slot is this place."""
        return self.waiting / (UNIFORM_SLOTS - place) if place < UNIFORM_SLOTS else 0.0

    def _normalise(self) -> None:
        total = self.greedy + self.drawn + self.waiting + self.uniform
        if total <= 0.0:
            self.greedy, self.drawn, self.waiting, self.uniform = 1.0, 0.0, 0.0, 0.0
            return
        self.greedy, self.drawn = self.greedy / total, self.drawn / total
        self.waiting, self.uniform = self.waiting / total, self.uniform / total
