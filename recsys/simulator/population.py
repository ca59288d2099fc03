"""The shop's items and users, in daily cohorts, each drawn from a random stream of its own.

A cohort depends on the seed and its day only, so a longer horizon does not change earlier days.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys.simulator.dials import BoolArray, FloatArray, IntArray, ShopDials
from recsys.simulator.item_texts import draw_item_texts
from recsys.simulator.randomness import Stream, stream

CLICK: Final = 0
PURCHASE: Final = 1
RATING: Final = 2
NEVER: Final = 1 << 30
AGE_BANDS: Final = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
COUNTRIES: Final = ("at", "be", "ch", "de", "es", "fr", "it", "nl", "pl", "se")
DEVICES: Final = ("mobile", "desktop", "tablet")
_DEVICE_SHARES: Final = (0.6, 0.3, 0.1)
_MIN_AGE_DAYS: Final = 3
_POPULAR_STAY: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """All items until the horizon, in order of arrival.

    factors [3, I, rank] and appeal [3, I] by task; popularity [I], log weight; category [I]; price [I], minor
    units; log_price [I], standardised; arrival_day [I], first day in the shop; withdrawal_day [I],
    first day no longer in it.
    """

    factors: FloatArray
    appeal: FloatArray
    popularity: FloatArray
    category: IntArray
    price: IntArray
    log_price: FloatArray
    arrival_day: IntArray
    withdrawal_day: IntArray
    titles: list[str]
    descriptions: list[str]

    def available(self, day: int) -> IntArray:
        """List the items in the shop on a day."""
        return np.flatnonzero((self.arrival_day <= day) & (self.withdrawal_day > day))


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """All users until the horizon, in order of arrival.

    A taste is attribute_taste [U, rank], explained by age band and country, plus an individual part that
    drifts: it rotates from own_taste [U, rank] towards drift_target [U, rank] by drift_rate [U] radians a
    day. policy_error [U, rank]: error of the policy's estimate of the taste; bias [3, U] by task; activity
    [U]; contrary [U]: buys and rates against the taste.
    """

    attribute_taste: FloatArray
    own_taste: FloatArray
    drift_target: FloatArray
    drift_rate: FloatArray
    policy_error: FloatArray
    bias: FloatArray
    activity: FloatArray
    age_band: IntArray
    country: IntArray
    device: IntArray
    arrival_day: IntArray
    contrary: BoolArray

    def taste_on(self, users: IntArray, days: IntArray | int) -> FloatArray:
        """Return tastes [N, rank] of users [N] on day numbers [N]; their spread is the same on every day."""
        angle = (self.drift_rate[users] * days)[:, None]
        own = np.cos(angle) * self.own_taste[users] + np.sin(angle) * self.drift_target[users]
        tastes: FloatArray = self.attribute_taste[users] + own
        return tastes


def dimension_spread(rank: int) -> FloatArray:
    """Return the standard deviation of an item factor by dimension; the squares sum to 1."""
    variance = np.arange(1, rank + 1) ** -0.5
    spread: FloatArray = np.sqrt(variance / variance.sum())
    return spread


def build_items(dials: ShopDials, seed: int, horizon: int) -> Items:
    """Draw the items of day numbers 0 to horizon - 1, and the day on which each is withdrawn."""
    rng = stream(seed, Stream.WORLD)
    centres = rng.standard_normal((3, dials.categories, dials.rank))
    category_price = rng.normal(7.6, 0.7, dials.categories)
    arrivals = round(dials.items * dials.new_item_rate)
    cohorts = [
        _item_cohort(dials, stream(seed, Stream.ITEMS, day), centres, category_price, day=day, number=number)
        for day in range(horizon)
        if (number := dials.items if day == 0 else arrivals) > 0
    ]
    items = Items(
        factors=np.concatenate([c.factors for c in cohorts], axis=1),
        appeal=np.concatenate([c.appeal for c in cohorts], axis=1),
        popularity=np.concatenate([c.popularity for c in cohorts]),
        category=np.concatenate([c.category for c in cohorts]),
        price=np.concatenate([c.price for c in cohorts]),
        log_price=np.concatenate([c.log_price for c in cohorts]),
        arrival_day=np.concatenate([c.arrival_day for c in cohorts]),
        withdrawal_day=np.concatenate([c.withdrawal_day for c in cohorts]),
        titles=[title for c in cohorts for title in c.titles],
        descriptions=[text for c in cohorts for text in c.descriptions],
    )
    _withdraw(items, seed, horizon, arrivals)
    return items


def build_users(dials: ShopDials, seed: int, horizon: int) -> Users:
    """Draw the users of day numbers 0 to horizon - 1."""
    rng = stream(seed, Stream.WORLD, 1)
    by_age = rng.standard_normal((len(AGE_BANDS), dials.rank))
    by_country = rng.standard_normal((len(COUNTRIES), dials.rank))
    arrivals = round(dials.users * dials.new_user_rate)
    cohorts = [
        _user_cohort(dials, stream(seed, Stream.USERS, day), by_age, by_country, day=day, number=number)
        for day in range(horizon)
        if (number := dials.users if day == 0 else arrivals) > 0
    ]
    return Users(
        attribute_taste=np.concatenate([c.attribute_taste for c in cohorts]),
        own_taste=np.concatenate([c.own_taste for c in cohorts]),
        drift_target=np.concatenate([c.drift_target for c in cohorts]),
        drift_rate=np.concatenate([c.drift_rate for c in cohorts]),
        policy_error=np.concatenate([c.policy_error for c in cohorts]),
        bias=np.concatenate([c.bias for c in cohorts], axis=1),
        activity=np.concatenate([c.activity for c in cohorts]),
        age_band=np.concatenate([c.age_band for c in cohorts]),
        country=np.concatenate([c.country for c in cohorts]),
        device=np.concatenate([c.device for c in cohorts]),
        arrival_day=np.concatenate([c.arrival_day for c in cohorts]),
        contrary=np.concatenate([c.contrary for c in cohorts]),
    )


def related(relatedness: float, click: FloatArray, own: FloatArray) -> FloatArray:
    """Mix a task's own direction with click's so that the correlation of both is `relatedness`."""
    mixed: FloatArray = relatedness * click + np.sqrt(1 - relatedness**2) * own
    return mixed


def _item_cohort(
    dials: ShopDials,
    rng: np.random.Generator,
    centres: FloatArray,
    category_price: FloatArray,
    *,
    day: int,
    number: int,
) -> Items:
    category = rng.integers(dials.categories, size=number)
    own = rng.standard_normal((3, number, dials.rank))
    share = dials.category_share
    factors = np.sqrt(share) * centres[:, category] + np.sqrt(1 - share) * own
    factors *= dimension_spread(dials.rank)
    popularity, popularity_score = _popularity(dials, rng.random(number))
    taken = dials.popularity_appeal
    appeal = rng.standard_normal((3, number))
    appeal[CLICK] = taken * popularity_score + np.sqrt(1 - taken**2) * appeal[CLICK]
    for task in (PURCHASE, RATING):
        factors[task] = related(dials.relatedness, factors[CLICK], factors[task])
        appeal[task] = related(dials.relatedness, appeal[CLICK], appeal[task])
    log_price = category_price[category] + rng.normal(0.0, 0.5, number)
    titles, descriptions = draw_item_texts(dials, factors[CLICK], category, rng)
    return Items(
        factors=factors,
        appeal=appeal,
        popularity=popularity,
        category=category,
        price=np.rint(np.exp(log_price)).astype(np.int64),
        log_price=(log_price - 7.6) / np.hypot(0.7, 0.5),
        arrival_day=np.full(number, day, dtype=np.int64),
        withdrawal_day=np.full(number, NEVER, dtype=np.int64),
        titles=titles,
        descriptions=descriptions,
    )


def _popularity(dials: ShopDials, rank: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Zipf-Mandelbrot log weights [N] of relative ranks [N] in (0, 1), raw and standardised."""
    flat = dials.popularity_flat / dials.items
    grid = -np.log((np.arange(2_000) + 0.5) / 2_000 + flat)
    popularity = -np.log(rank + flat)
    return popularity, (popularity - grid.mean()) / grid.std()


def _user_cohort(
    dials: ShopDials,
    rng: np.random.Generator,
    by_age: FloatArray,
    by_country: FloatArray,
    *,
    day: int,
    number: int,
) -> Users:
    age_band = rng.integers(len(AGE_BANDS), size=number)
    country = rng.integers(len(COUNTRIES), size=number)
    share = dials.attribute_share
    own = np.sqrt(1 - share) * rng.standard_normal((2, number, dials.rank))
    spreads = np.array([dials.click_user, dials.purchase_user, dials.rating_user])
    return Users(
        attribute_taste=np.sqrt(share / 2) * (by_age[age_band] + by_country[country]),
        own_taste=own[0],
        drift_target=own[1],
        drift_rate=np.abs(rng.normal(0.0, dials.drift, number)),
        policy_error=rng.standard_normal((number, dials.rank)),
        bias=rng.standard_normal((3, number)) * spreads[:, None],
        activity=np.exp(rng.normal(0.0, dials.activity_spread, number)),
        age_band=age_band,
        country=country,
        device=rng.choice(len(DEVICES), size=number, p=_DEVICE_SHARES),
        arrival_day=np.full(number, day, dtype=np.int64),
        # Drawn last, so that this dial does not change the other draws.
        contrary=rng.random(number) < dials.contrary_users,
    )


def _withdraw(items: Items, seed: int, horizon: int, number: int) -> None:
    of_first_day = items.arrival_day == 0
    for day in range(1, horizon):
        rng = stream(seed, Stream.WITHDRAWALS, day)
        candidates = np.flatnonzero(
            (of_first_day | (items.arrival_day <= day - _MIN_AGE_DAYS)) & (items.withdrawal_day > day)
        )
        keys = (
            np.log(rng.standard_exponential(len(candidates))) + _POPULAR_STAY * items.popularity[candidates]
        )
        items.withdrawal_day[candidates[np.argsort(keys)[:number]]] = day
