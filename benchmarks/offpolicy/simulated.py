"""Many logs of the simulated shop, one target policy each: bias, variance and coverage of every estimator.

The logging policy is the shop's own, flattened so that it explores. The target is sharper. The truth is the
mean of the shop's click probabilities over lists drawn by the target, with no label drawn. Only requests
differ from log to log, so requests are what intervals are drawn over.

Legend: R requests, C candidates, K places.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.offpolicy.evaluate import PolicyValue, evaluate
from recsys.offpolicy.logged import LoggedLists
from recsys.offpolicy.propensities import propensity_table
from recsys.offpolicy.target import Predictions, TargetPolicy
from recsys.simulator.dials import FloatArray, IntArray, ShopDials
from recsys.simulator.ground_truth import ImpressionArrays
from recsys.simulator.logging_policy import (
    Candidates,
    Slates,
    conditional_propensity,
    draw_candidates,
    draw_slates,
    utilities,
)
from recsys.simulator.randomness import Stream, stream
from recsys.simulator.shop import Shop

DIALS = ShopDials(users=2_000, items=300, days=2, candidates=40, click_base=-2.5)
TRUTH_REQUESTS = 100_000
MODEL_REQUESTS = 20_000
_DRAWS = 4
"""Lists of the target drawn per request for what the model says of them."""
_HOUR = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A logging policy, a target, and the places of a list. Utilities are multiplied by the sharpness."""

    name: str
    places: int
    logging: float
    target: float


SETTINGS = (
    Setting(name="one place", places=1, logging=0.3, target=0.5),
    Setting(name="one place, far", places=1, logging=0.2, target=2.0),
    Setting(name="three places", places=3, logging=0.3, target=0.4),
    Setting(name="ten places", places=10, logging=0.3, target=0.35),
    Setting(name="ten places, far", places=10, logging=0.3, target=0.6),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """R requests of one day: who asks, for what, and how the shop's policy likes each candidate [R, C]."""

    users: IntArray
    candidates: Candidates
    utility: FloatArray

    @classmethod
    def draw(cls, shop: Shop, count: int, rng: np.random.Generator) -> "Requests":
        """Draw requests of the shop's first day."""
        users = shop.draw_users(0, count, rng)
        candidates = draw_candidates(shop, 0, count, rng)
        return cls(
            users=users, candidates=candidates, utility=utilities(shop, 0, users, candidates).astype(float)
        )

    def slates(self, sharpness: float, places: int, rng: np.random.Generator) -> Slates:
        """Draw lists by a policy of that sharpness."""
        return draw_slates(self.candidates, (self.utility * sharpness).astype(np.float32), places, rng)


def measure_simulated(
    settings: Sequence[Setting],
    runs: int,
    requests: int,
    replicates: int,
    seed: int,
    on_run: Callable[[int, int], None] = lambda _done, _all: None,
) -> dict[str, Any]:
    """Estimate the value of each setting's target from many logs and hold it against the truth."""
    shop = Shop.from_seed(DIALS, seed, extra_days=1)
    found: dict[str, Any] = {}
    for number, setting in enumerate(settings):
        rng = stream(seed, Stream.LOG, number)
        world = _World(shop, setting, rng)
        values = []
        for run in range(runs):
            values.append(world.estimate(requests, replicates, rng))
            on_run(number * runs + run + 1, runs * len(settings))
        found[setting.name] = {
            "places": setting.places,
            "sharpness": [setting.logging, setting.target],
            "truth": world.truth,
            **summary(values, world.truth),
            "propensities": world.propensity_bins(requests, rng),
        }
    first = found[settings[0].name]["estimators"]
    coverage = {name: first[name]["coverage"] for name in ("ips", "snips", "dr")}
    return {"runs": runs, "requests": requests, "seed": seed, "coverage": coverage, "settings": found}


class _World:
    """A shop with a logging policy, a target and its true value, and a poor model fitted on a log before."""

    def __init__(self, shop: Shop, setting: Setting, rng: np.random.Generator) -> None:
        self.shop, self.setting = shop, setting
        self.place = shop.truth.examination(np.arange(1, setting.places + 1))
        wanted = Requests.draw(shop, TRUTH_REQUESTS, rng)
        slates = wanted.slates(setting.target, setting.places, rng)
        self.truth = float(self._click(wanted.users, slates).sum(axis=1).mean())
        self.model = self._fit(rng)

    def estimate(self, count: int, replicates: int, rng: np.random.Generator) -> PolicyValue:
        """Draw a log and estimate the target's clicks per list from it."""
        asked = Requests.draw(self.shop, count, rng)
        slates = asked.slates(self.setting.logging, self.setting.places, rng)
        click = rng.random(slates.items.shape) < self._click(asked.users, slates)
        chosen = columns_of(asked.candidates, slates.items)
        utility = (asked.utility * self.setting.target).astype(np.float32)
        target = TargetPolicy.of(
            conditional_propensity(utility, chosen), self._predictions(asked, chosen, rng)
        )
        logged = LoggedLists.of_lists(click, slates.propensity)
        return evaluate(logged, target, generator=rng, replicates=replicates)

    def propensity_bins(self, count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Hold the propensities of all candidates at the first place against what was shown there."""
        asked = Requests.draw(self.shop, count, rng)
        slates = asked.slates(self.setting.logging, 1, rng)
        chance = _softmax((asked.utility * self.setting.logging).astype(np.float32).astype(float))
        shown = np.zeros(chance.shape, np.bool_)
        np.put_along_axis(shown, columns_of(asked.candidates, slates.items), True, axis=1)
        real = asked.candidates.first
        return [row.model_dump() for row in propensity_table(chance[real], shown[real], 5)]

    def _click(self, users: IntArray, slates: Slates) -> FloatArray:
        count, places = slates.items.shape
        arrays = ImpressionArrays(
            users=np.repeat(users, places),
            items=slates.items.ravel(),
            days=np.zeros(count * places, np.int64),
            hours=np.full(count * places, _HOUR),
            devices=np.repeat(self.shop.users.device[users], places),
            positions=np.tile(np.arange(1, places + 1), count),
        )
        return self.shop.truth.probabilities(arrays).click.reshape(count, places)

    def _fit(self, rng: np.random.Generator) -> FloatArray:
        """Fit each item's smoothed click rate on a log of its own: a model that knows no user."""
        asked = Requests.draw(self.shop, MODEL_REQUESTS, rng)
        slates = asked.slates(self.setting.logging, self.setting.places, rng)
        click = (rng.random(slates.items.shape) < self._click(asked.users, slates)).astype(float)
        seen = np.broadcast_to(self.place, click.shape)
        size = len(self.shop.items.arrival_day)
        clicks, looks = (np.bincount(slates.items.ravel(), v.ravel(), size) for v in (click, seen))
        mean = clicks.sum() / looks.sum()
        rate: FloatArray = (clicks + 20 * mean) / (looks + 20)
        return rate

    def _predictions(self, asked: Requests, chosen: IntArray, rng: np.random.Generator) -> Predictions:
        """Predict places one by one: the model's mean over what the target would put there."""
        rate = self.model[asked.candidates.items]
        rows = np.arange(len(rate))[:, None]
        left = asked.utility * self.setting.target
        expected = np.empty(chosen.shape)
        for k in range(chosen.shape[1]):
            expected[:, k] = (_softmax(left) * rate).sum(axis=1) * self.place[k]
            left[rows[:, 0], chosen[:, k]] = -np.inf
        drawn = [
            (self.model[asked.slates(self.setting.target, self.setting.places, rng).items] @ self.place)
            for _ in range(_DRAWS)
        ]
        return Predictions.of_places(rate[rows, chosen] * self.place, expected, np.mean(drawn, axis=0))


def columns_of(candidates: Candidates, items: IntArray) -> IntArray:
    """Give the first column of each shown item [R, K] among its request's candidates."""
    offered = np.where(candidates.first, candidates.items, -1)
    found: IntArray = (offered[:, None, :] == items[:, :, None]).argmax(axis=2)
    return found


def summary(values: Sequence[PolicyValue], truth: float) -> dict[str, Any]:
    """Give bias, spread and coverage of each estimator, and how often a value was stamped."""
    estimators = {}
    for name in values[0].estimates:
        of = [value.estimates[name] for value in values]
        known = np.array([np.nan if e.value is None else e.value for e in of])
        low, high = (
            np.array([np.nan if v is None else v for v in side])
            for side in zip(*((e.low, e.high) for e in of), strict=True)
        )
        inside = (low <= truth) & (truth <= high)
        spread = float(np.nanstd(known, ddof=1))
        estimators[name] = {
            "bias": float(np.nanmean(known) - truth),
            "bias_error": spread / float(np.sqrt(len(known))),
            "variance": spread**2,
            "rmse": float(np.sqrt(np.nanmean((known - truth) ** 2))),
            "coverage": float(inside.mean()),
            "width": float(np.nanmean(high - low)),
        }
    support = [value.support for value in values]
    return {
        "effective": float(np.median([s.effective for s in support])),
        "positives": float(np.median([s.effective_positives for s in support])),
        "max_weight": float(np.median([s.max_weight for s in support])),
        "stamped": float(np.mean([not value.trustworthy for value in values])),
        "disagreed": float(np.mean([any("disagree" in p for p in value.problems) for value in values])),
        "intervals": sorted({value.interval for value in values}),
        "estimators": estimators,
    }


def _softmax(utility: FloatArray) -> FloatArray:
    weight = np.exp(utility - utility.max(axis=1, keepdims=True))
    chance: FloatArray = weight / weight.sum(axis=1, keepdims=True)
    return chance
