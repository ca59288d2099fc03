"""The shop's logging policy: sampled candidates, then sequential Plackett-Luce with exact propensities."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys.simulator.dials import BoolArray, FloatArray, IntArray, ShopDials, SmallFloatArray
from recsys.simulator.population import CLICK
from recsys.simulator.shop import Shop

POLICY_NAME: Final = "simulated_plackett_luce"
CANDIDATE_SOURCES: Final = ("popular", "uniform")
_TABLE_SIZE: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Candidate sets of R requests, C draws each.

    available [A]: the day's items; place [R, C]: positions in `available`, ascending; source [R, C]:
    positions in CANDIDATE_SOURCES; first [R, C]: whether this is the item's first draw; other draws are
    ignored.
    """

    available: IntArray
    place: IntArray
    source: IntArray
    first: BoolArray

    @property
    def items(self) -> IntArray:
        """Return item numbers [R, C]."""
        return self.available[self.place]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slates:
    """The shown items [R, K] in order, and each one's propensity [R, K] given the items above it."""

    items: IntArray
    propensity: FloatArray


def draw_candidates(shop: Shop, day: int, count: int, rng: np.random.Generator) -> Candidates:
    """Draw candidate sets for `count` requests among the day's available items."""
    dials = shop.dials
    available = shop.items.available(day)
    by_popularity = _popularity_table(shop.items.popularity[available])
    num_popular = round(dials.candidates * dials.popular_share)
    popular = by_popularity[rng.integers(_TABLE_SIZE, size=(count, num_popular), dtype=np.uint16)]
    uniform = rng.integers(len(available), size=(count, dials.candidates - num_popular))
    keys = np.concatenate([popular * 2, uniform * 2 + 1], axis=1)
    keys.sort(axis=1)
    place = keys >> 1
    first = np.ones(place.shape, dtype=np.bool_)
    first[:, 1:] = place[:, 1:] != place[:, :-1]
    return Candidates(available=available, place=place, source=keys & 1, first=first)


def utilities(shop: Shop, day: int, users: IntArray, candidates: Candidates) -> SmallFloatArray:
    """Return the policy's utility [R, C] of each candidate; -inf for repeated draws."""
    dials = shop.dials
    available = candidates.available
    taste = shop.users.taste_on(users, day)
    error = np.sqrt(1 - dials.policy_knowledge**2) * shop.users.policy_error[users]
    belief = (dials.policy_taste * (dials.policy_knowledge * taste + error)).astype(np.float32)
    whole = belief @ shop.items.factors[CLICK, available].T.astype(np.float32)
    whole += (dials.policy_popularity * shop.items.popularity[available]).astype(np.float32)
    utility = np.take_along_axis(whole, candidates.place, axis=1)
    utility[~candidates.first] = -np.inf
    return utility


def draw_slates(
    candidates: Candidates, utility: SmallFloatArray, page_size: int, rng: np.random.Generator
) -> Slates:
    """Draw slates by Gumbel top-k: at each position, a softmax over the remaining items (Plackett-Luce).

    Source: Yellott, J. Math. Psychology 1977; Kool et al., ICML 2019.
    """
    rows = np.arange(len(utility))[:, None]
    size = min(page_size, int(candidates.first.sum(axis=1).min()))
    keys = utility - np.log(rng.standard_exponential(utility.shape))
    top = np.argpartition(-keys, size - 1, axis=1)[:, :size]
    chosen = np.take_along_axis(top, np.argsort(-keys[rows, top], axis=1), axis=1)
    items = candidates.available[candidates.place[rows, chosen]]
    return Slates(items=items, propensity=conditional_propensity(utility, chosen))


def conditional_propensity(utility: SmallFloatArray, chosen: IntArray) -> FloatArray:
    """Return each chosen candidate's exp(u), divided by the sum over those not chosen above it: [R, K].

    Args: utility [R, C]; chosen [R, K], columns of utility in order of position.
    """
    rows = np.arange(len(utility))[:, None]
    weight = np.exp(utility.astype(np.float64) - utility.max(axis=1, keepdims=True))
    picked = weight[rows, chosen]
    weight[rows, chosen] = 0.0
    # Summing the rest from the back is exact where subtracting from the total would cancel digits.
    below = np.cumsum(picked[:, ::-1], axis=1)[:, ::-1]
    propensity: FloatArray = picked / (weight.sum(axis=1, keepdims=True) + below)
    return propensity


def policy_parameters(dials: ShopDials) -> dict[str, float]:
    """Return the policy's parameters as they are written to the log."""
    return {
        "candidates": dials.candidates,
        "popular_share": dials.popular_share,
        "popularity": dials.policy_popularity,
        "taste": dials.policy_taste,
        "knowledge": dials.policy_knowledge,
    }


def _popularity_table(popularity: FloatArray) -> IntArray:
    cumulative = np.cumsum(np.exp(popularity))
    at = (np.arange(_TABLE_SIZE) + 0.5) * (cumulative[-1] / _TABLE_SIZE)
    table: IntArray = np.searchsorted(cumulative, at)
    return table
