"""The true chances behind every impression, the noise that no feature can know included."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit, ndtr

from recsys.simulator.behaviour import Chances
from recsys.simulator.dials import FloatArray, IntArray, ShopDials
from recsys.simulator.randomness import keyed_normal
from recsys.simulator.world import CLICK, PURCHASE, RATING, Items, Users

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
class Views:
    """Point at impressions: user and item numbers [N], day numbers [N], hours [N], device numbers [N].

    position [N], from 1; None means that every item was surely looked at.
    """

    users: IntArray
    items: IntArray
    days: IntArray
    hours: IntArray
    devices: IntArray
    positions: IntArray | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Know every chance in the shop."""

    dials: ShopDials
    seed: int
    items: Items
    users: Users

    def chances(self, views: Views) -> Chances:
        """Return the true chances of each impression."""
        tastes = self.users.taste_on(views.users, views.days)
        click = expit(self._click_logit(views, tastes))
        if views.positions is not None:
            click = click * self.examination(views.positions)
        return Chances(
            click=click,
            purchase_given_click=expit(self._purchase_logit(views, tastes)),
            stars=self._stars(views, tastes),
        )

    def examination(self, positions: IntArray) -> FloatArray:
        """Return the chance [N] that a position [N] (1 = top) is looked at."""
        chance: FloatArray = positions.astype(np.float64) ** -self.dials.position_decay
        return chance

    def expected_rating(self, chances: Chances) -> FloatArray:
        """Return the mean [N] of the rating in half stars from 1 to 5, if it is given."""
        return half_star_mean(chances.stars, self.dials.rating_residual)

    def _click_logit(self, views: Views, tastes: FloatArray) -> FloatArray:
        dials = self.dials
        logit = dials.click_base + dials.click_taste * self._match(CLICK, views, tastes)
        logit += dials.click_appeal * self.items.appeal[CLICK, views.items]
        logit += _DEVICE_CLICK[views.devices]
        logit += _EVENING * np.cos((views.hours - _EVENING_HOUR) * (2 * np.pi / 24))
        return logit + self._own(CLICK, views, dials.click_noise)

    def _purchase_logit(self, views: Views, tastes: FloatArray) -> FloatArray:
        dials = self.dials
        logit = dials.purchase_base + dials.purchase_taste * self._match(PURCHASE, views, tastes)
        logit += dials.purchase_appeal * self.items.appeal[PURCHASE, views.items]
        logit -= dials.purchase_price * self.items.log_price[views.items]
        logit += _DEVICE_PURCHASE[views.devices]
        return logit + self._own(PURCHASE, views, dials.purchase_noise)

    def _stars(self, views: Views, tastes: FloatArray) -> FloatArray:
        dials = self.dials
        stars = dials.rating_base + dials.rating_taste * self._match(RATING, views, tastes)
        stars += dials.rating_appeal * self.items.appeal[RATING, views.items]
        return stars + self._own(RATING, views, dials.rating_noise)

    def _match(self, task: int, views: Views, tastes: FloatArray) -> FloatArray:
        match: FloatArray = np.einsum("nr,nr->n", tastes, self.items.factors[task, views.items])
        return match if task == CLICK else np.where(self.users.contrary[views.users], -match, match)

    def _own(self, task: int, views: Views, noise: float) -> FloatArray:
        unknowable = keyed_normal(self.seed, task, views.users, views.items, views.days)
        own: FloatArray = self.users.bias[task, views.users] + noise * unknowable
        return own
