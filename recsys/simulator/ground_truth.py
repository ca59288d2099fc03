"""The true probabilities of feedback on each impression, including the noise that no feature explains."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit, ndtr

from recsys.simulator.behaviour import Probabilities
from recsys.simulator.dials import FloatArray, IntArray, ShopDials
from recsys.simulator.population import CLICK, PURCHASE, RATING, Items, Users
from recsys.simulator.randomness import keyed_normal

_HALF_STARS: Final = np.arange(1.25, 5.0, 0.5)
_DEVICE_CLICK: Final = np.array([0.05, -0.1, 0.0])
_DEVICE_PURCHASE: Final = np.array([-0.15, 0.25, 0.0])
_EVENING: Final = 0.15
_EVENING_HOUR: Final = 20


def half_star_mean(stars: FloatArray, spread: float) -> FloatArray:
    """Return the mean [N] of normal values around stars [N], rounded to half stars and clipped to 1..5."""
    above = ndtr((stars[:, None] - _HALF_STARS) / max(spread, 1e-9))
    mean: FloatArray = 1.0 + 0.5 * above.sum(axis=1)
    return mean


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpressionArrays:
    """N impressions as arrays: numbers of users, items, days and devices [N], and hours [N].

    positions [N], from 1; None: every item is examined with certainty.
    """

    users: IntArray
    items: IntArray
    days: IntArray
    hours: IntArray
    devices: IntArray
    positions: IntArray | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """Computes the true probabilities of the shop."""

    dials: ShopDials
    seed: int
    items: Items
    users: Users

    def probabilities(self, arrays: ImpressionArrays) -> Probabilities:
        """Return the true probabilities of each impression."""
        tastes = self.users.taste_on(arrays.users, arrays.days)
        click = expit(self._click_logit(arrays, tastes))
        if arrays.positions is not None:
            click = click * self.examination(arrays.positions)
        return Probabilities(
            click=click,
            purchase_given_click=expit(self._purchase_logit(arrays, tastes)),
            stars=self._stars(arrays, tastes),
        )

    def examination(self, positions: IntArray) -> FloatArray:
        """Return the probability [N] that a position [N] (1 = top) is examined."""
        probability: FloatArray = positions.astype(np.float64) ** -self.dials.position_decay
        return probability

    def expected_rating(self, probabilities: Probabilities) -> FloatArray:
        """Return the expected rating [N] in half stars from 1 to 5, given that the user rates."""
        return half_star_mean(probabilities.stars, self.dials.rating_residual)

    def _click_logit(self, arrays: ImpressionArrays, tastes: FloatArray) -> FloatArray:
        dials = self.dials
        logit = dials.click_base + dials.click_taste * self._match(CLICK, arrays, tastes)
        logit += dials.click_appeal * self.items.appeal[CLICK, arrays.items]
        logit += _DEVICE_CLICK[arrays.devices]
        logit += _EVENING * np.cos((arrays.hours - _EVENING_HOUR) * (2 * np.pi / 24))
        return logit + self._noisy_bias(CLICK, arrays, dials.click_noise)

    def _purchase_logit(self, arrays: ImpressionArrays, tastes: FloatArray) -> FloatArray:
        dials = self.dials
        logit = dials.purchase_base + dials.purchase_taste * self._match(PURCHASE, arrays, tastes)
        logit += dials.purchase_appeal * self.items.appeal[PURCHASE, arrays.items]
        logit -= dials.purchase_price * self.items.log_price[arrays.items]
        logit += _DEVICE_PURCHASE[arrays.devices]
        return logit + self._noisy_bias(PURCHASE, arrays, dials.purchase_noise)

    def _stars(self, arrays: ImpressionArrays, tastes: FloatArray) -> FloatArray:
        dials = self.dials
        stars = dials.rating_base + dials.rating_taste * self._match(RATING, arrays, tastes)
        stars += dials.rating_appeal * self.items.appeal[RATING, arrays.items]
        return stars + self._noisy_bias(RATING, arrays, dials.rating_noise)

    def _match(self, task: int, arrays: ImpressionArrays, tastes: FloatArray) -> FloatArray:
        match: FloatArray = np.einsum("nr,nr->n", tastes, self.items.factors[task, arrays.items])
        return match if task == CLICK else np.where(self.users.contrary[arrays.users], -match, match)

    def _noisy_bias(self, task: int, arrays: ImpressionArrays, noise: float) -> FloatArray:
        noise_draw = keyed_normal(self.seed, task, arrays.users, arrays.items, arrays.days)
        biased: FloatArray = self.users.bias[task, arrays.users] + noise * noise_draw
        return biased
