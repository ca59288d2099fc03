"""Who lives in the shop: items and users in daily cohorts, each drawn from a stream of its own.

A cohort depends on the seed and its day alone, so a longer horizon never changes an earlier day.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys.simulator.dials import BoolArray, FloatArray, IntArray, ShopDials
from recsys.simulator.randomness import Stream, stream
from recsys.simulator.words import write_texts

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
    """All items up to the horizon, in order of arrival.

    factors [3, I, rank] and appeal [3, I] by task; popularity [I], log weight; category [I]; price [I], minor
    units; log_price [I], standardised; born [I] and gone [I], first day in the shop and first day out of it.
    """

    factors: FloatArray
    appeal: FloatArray
    popularity: FloatArray
    category: IntArray
    price: IntArray
    log_price: FloatArray
    born: IntArray
    gone: IntArray
    titles: list[str]
    descriptions: list[str]

    def available(self, day: int) -> IntArray:
        """List the items in the shop on a day."""
        return np.flatnonzero((self.born <= day) & (self.gone > day))


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """All users up to the horizon, in order of arrival.

    known [U, rank]: the part of the taste that age band and country explain; own and own_turned [U, rank]:
    where the rest starts and where it turns to; turn [U], radians a day; misbelief [U, rank], the error of
    the policy's knowledge; bias [3, U] by task; activity [U]; contrary [U]: buys and rates against the taste.
    """

    known: FloatArray
    own: FloatArray
    own_turned: FloatArray
    turn: FloatArray
    misbelief: FloatArray
    bias: FloatArray
    activity: FloatArray
    age_band: IntArray
    country: IntArray
    device: IntArray
    born: IntArray
    contrary: BoolArray

    def taste_on(self, users: IntArray, days: IntArray | int) -> FloatArray:
        """Return tastes [N, rank] of users [N] on day numbers [N]; each day's tastes have the same spread."""
        angle = (self.turn[users] * days)[:, None]
        own = np.cos(angle) * self.own[users] + np.sin(angle) * self.own_turned[users]
        tastes: FloatArray = self.known[users] + own
        return tastes


def dimension_spread(rank: int) -> FloatArray:
    """Return the standard deviation of an item factor by dimension; the squares sum to 1."""
    variance = np.arange(1, rank + 1) ** -0.5
    spread: FloatArray = np.sqrt(variance / variance.sum())
    return spread


def build_items(dials: ShopDials, seed: int, horizon: int) -> Items:
    """Draw the items of day numbers 0 to horizon - 1 and decide when each is withdrawn."""
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
        born=np.concatenate([c.born for c in cohorts]),
        gone=np.concatenate([c.gone for c in cohorts]),
        titles=[title for c in cohorts for title in c.titles],
        descriptions=[text for c in cohorts for text in c.descriptions],
    )
    _withdraw(items, seed, horizon, arrivals)
    return items


def build_users(dials: ShopDials, seed: int, horizon: int) -> Users:
    """Draw the users who are known by day number horizon - 1."""
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
        known=np.concatenate([c.known for c in cohorts]),
        own=np.concatenate([c.own for c in cohorts]),
        own_turned=np.concatenate([c.own_turned for c in cohorts]),
        turn=np.concatenate([c.turn for c in cohorts]),
        misbelief=np.concatenate([c.misbelief for c in cohorts]),
        bias=np.concatenate([c.bias for c in cohorts], axis=1),
        activity=np.concatenate([c.activity for c in cohorts]),
        age_band=np.concatenate([c.age_band for c in cohorts]),
        country=np.concatenate([c.country for c in cohorts]),
        device=np.concatenate([c.device for c in cohorts]),
        born=np.concatenate([c.born for c in cohorts]),
        contrary=np.concatenate([c.contrary for c in cohorts]),
    )


def related(relatedness: float, click: FloatArray, own: FloatArray) -> FloatArray:
    """Mix a task's own direction with click's, so that their correlation is `relatedness`."""
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
    titles, descriptions = write_texts(dials, factors[CLICK], category, rng)
    return Items(
        factors=factors,
        appeal=appeal,
        popularity=popularity,
        category=category,
        price=np.rint(np.exp(log_price)).astype(np.int64),
        log_price=(log_price - 7.6) / np.hypot(0.7, 0.5),
        born=np.full(number, day, dtype=np.int64),
        gone=np.full(number, NEVER, dtype=np.int64),
        titles=titles,
        descriptions=descriptions,
    )


def _popularity(dials: ShopDials, place: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Turn ranking places [N] in (0, 1) into log weights [N] of Zipf-Mandelbrot's law, and standardise."""
    flat = dials.popularity_flat / dials.items
    grid = -np.log((np.arange(2_000) + 0.5) / 2_000 + flat)
    popularity = -np.log(place + flat)
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
        known=np.sqrt(share / 2) * (by_age[age_band] + by_country[country]),
        own=own[0],
        own_turned=own[1],
        turn=np.abs(rng.normal(0.0, dials.drift, number)),
        misbelief=rng.standard_normal((number, dials.rank)),
        bias=rng.standard_normal((3, number)) * spreads[:, None],
        activity=np.exp(rng.normal(0.0, dials.activity_spread, number)),
        age_band=age_band,
        country=country,
        device=rng.choice(len(DEVICES), size=number, p=_DEVICE_SHARES),
        born=np.full(number, day, dtype=np.int64),
        # Drawn last: every other draw is what it was before this dial.
        contrary=rng.random(number) < dials.contrary_users,
    )


def _withdraw(items: Items, seed: int, horizon: int, number: int) -> None:
    opening = items.born == 0
    for day in range(1, horizon):
        rng = stream(seed, Stream.WITHDRAWALS, day)
        pool = np.flatnonzero((opening | (items.born <= day - _MIN_AGE_DAYS)) & (items.gone > day))
        keys = np.log(rng.standard_exponential(len(pool))) + _POPULAR_STAY * items.popularity[pool]
        items.gone[pool[np.argsort(keys)[:number]]] = day
