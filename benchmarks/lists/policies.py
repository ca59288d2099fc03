"""The policies whose lists are valued: name -> its kind and its pages, made of a log and three models of it.

    learned   our heads and sources, in many mixes, and worse trained ones
    simple    rules and item-item models on the log
    shop      the shop's own policy
    planted   bad on purpose
    bound     what nobody can have: truth, oracles; and random pages

Legend: U requests, J items that may be listed, K places.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
import polars as pl

from benchmarks.lists.scores import Scored, score_night
from benchmarks.lists.shop_night import ShopNight
from benchmarks.lists.true_value import TrueValue
from recsys.metrics.table import most_places
from recsys.simulator.logging_policy import Candidates, draw_candidates, utilities
from recsys.simulator.oracle import estimate_users, informed_predictions, read_labelled
from training.baselines.counts import item_counts, positives
from training.baselines.item_item import EaseBefore, ItemItemScores, build_knn
from training.baselines.own_history import OwnHistory
from training.evaluation.audience import item_codes
from training.evaluation.lists import top_places

Kind = Literal["learned", "simple", "shop", "planted", "bound"]
OURS = "our lists"
FUNNEL = "funnel"
OWN_CLICKS = "own clicks, then popular"
ORACLE = "informed oracle"
RANDOM = "random"
_HEADS: Mapping[str, Mapping[str, float]] = {
    FUNNEL: {},
    "click head": {"purchase": 0.0, "rating": 0.0},
    "purchase head": {"click": 0.0, "rating": 0.0},
    "rating head": {"click": 0.0, "purchase": 0.0},
    "click and purchase heads": {"rating": 0.0},
    "stars count ten times": {"rating": 0.2},
}
"""Name -> weights of the heads, instead of the config's."""
_MIXES: Mapping[str, Mapping[str, float]] = {
    "heads + .3 retrieval": {"retrieval": 0.3},
    "heads + retrieval": {"retrieval": 1.0},
    "heads + 3 retrieval": {"retrieval": 3.0},
    "heads + .3 item-item": {"item_item": 0.3},
    "heads + item-item": {"item_item": 1.0},
    "heads + 3 item-item": {"item_item": 3.0},
    "heads + .3 own clicks": {"own": 0.3},
    "heads + own clicks": {"own": 1.0},
    "heads + .3 popular": {"popular": 0.3},
    "heads + popular": {"popular": 1.0},
    "heads + .3 of all": {"retrieval": 0.3, "item_item": 0.3, "own": 0.3},
}
"""Name -> how wide each source is beside the heads' score."""
_ITEMS_AT_ONCE = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy's pages, and the scores they come from."""

    kind: Kind
    ranked: np.ndarray
    """[U, most places that a metric reads]: columns of items, best first, -1 for none."""
    scores: np.ndarray | None = None
    """[U, J]; None: it has no scores."""

    @property
    def pages(self) -> np.ndarray:
        """Give the first pages [U, K]."""
        return self.ranked[:, : most_places("shown")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What the heads of a night's models say."""

    today: Scored
    older: Scored
    """Of about a week ago."""
    short: Scored
    """It has seen a single day."""
    hindsight: Scored
    """No policy is made of it: it has learned the last day too."""


def fit_models(night: ShopNight) -> Models:
    """Train them: cold, each for one pass over its days."""
    last = night.days.last
    middle = (last - 1) // 2
    return Models(
        today=score_night(night.fit(0, last - 2, calibrate=last - 1, sources=True), night, whole=True),
        older=score_night(night.fit(0, middle - 1, calibrate=middle), night, whole=False),
        short=score_night(night.fit(last - 2, last - 2, calibrate=last - 1), night, whole=False),
        hindsight=score_night(night.fit(middle, last, calibrate=last, seed=1), night, whole=True),
    )


def all_policies(night: ShopNight, models: Models, truth: TrueValue, seed: int) -> dict[str, Policy]:
    """Make every policy's pages."""
    rules = _simple_scores(night)
    found = _learned(models, rules[OWN_CLICKS])
    found |= {name: _of_scores("simple", scores, night.allowed) for name, scores in rules.items()}
    found |= _of_shop(night)
    found |= _planted(models.today, found[FUNNEL], night)
    return found | _bounds(night, models.today, truth, np.random.default_rng([seed, 15]))


def _of_scores(kind: Kind, scores: np.ndarray, within: np.ndarray) -> Policy:
    ranked = top_places(np.where(np.isnan(scores), -np.inf, scores), within, most_places("retrieved"))
    return Policy(kind=kind, ranked=ranked, scores=scores)


def _learned(models: Models, own: np.ndarray) -> dict[str, Policy]:
    today = models.today
    sources = dict(today.sources) | {"own": np.log1p(own).astype(np.float32)}
    with_own = Scored(
        predictions=today.predictions, sources=sources, candidates=today.candidates, fusion=today.fusion
    )
    scores = {OURS: today.served()}
    scores |= {name: today.fused(weights) for name, weights in _HEADS.items()}
    scores |= {name: with_own.mixed(parts) for name, parts in _MIXES.items()}
    scores |= {name: sources[source] for name, source in (("retrieval's order", "retrieval"),)}
    scores["item-item's order"] = sources["item_item"]
    found = {name: _of_scores("learned", of, today.candidates) for name, of in scores.items()}
    for name, model in (("bundle of a week ago", models.older), ("trained on one day", models.short)):
        found[name] = _of_scores("learned", model.fused(), model.candidates)
    found["retrieval of one day"] = _of_scores(
        "learned", models.short.sources["retrieval"], models.short.candidates
    )
    return found


def _simple_scores(night: ShopNight) -> dict[str, np.ndarray]:
    days, i, users = night.days, night.days.last, night.audience.requests["user_id"]
    task, ids = night.config.retrieval_task, night.item_ids
    assert task is not None, "the shop's config has a click head"
    counts = ids.to_frame().join(item_counts(days, i), on="item_id", how="left", maintain_order="left")
    ease = EaseBefore(days)

    def counted(column: str) -> np.ndarray:
        values = counts[column].fill_null(0).cast(pl.Float64).to_numpy()
        return np.broadcast_to(values, (users.len(), values.size))

    return {
        OWN_CLICKS: OwnHistory.before(days, i, task).of_lists(users, ids),
        "recent popular": counted(f"recent_{task.name}_count"),
        "popular": counted(f"{task.name}_count"),
        "item-kNN": ItemItemScores(positives(days, i, task), build_knn).of_lists(users, ids),
        "EASE": ease.of(i, task, recency=False).of_lists(users, ids),
        "EASE, recent clicks count more": ease.of(i, task, recency=True).of_lists(users, ids),
    }


def _of_shop(night: ShopNight) -> dict[str, Policy]:
    """Give the pages that the shop showed, and those that its policy would show without drawing."""
    requests, shop = night.audience.requests, night.shop
    day = shop.dials.day_number(night.audience.day)
    ids = night.item_ids
    logged = requests.select("request_id", "user_id").with_row_index("user")
    rows = night.days[night.days.last].table("examples").select("request_id", "item_id", "position")
    rows = rows.join(logged.select("request_id", "user"), on="request_id")
    shown = np.full((requests.height, shop.dials.page_size), -1)
    shown[rows["user"].to_numpy(), rows["position"].to_numpy() - 1] = item_codes(rows["item_id"], ids)
    rng = np.random.default_rng([shop.seed, 16])
    drawn: Candidates = draw_candidates(shop, day, requests.height, rng)
    utility = utilities(shop, day, shop.user_numbers(requests["user_id"]), drawn)
    best = np.argsort(-utility, axis=1, kind="stable")[:, : most_places("shown")]
    greedy = pl.Series("item_id", shop.item_ids(np.take_along_axis(drawn.items, best, axis=1).ravel()))
    return {
        "shop's policy": Policy(kind="shop", ranked=shown),
        "shop's policy, greedy": Policy(kind="shop", ranked=item_codes(greedy, ids).reshape(best.shape)),
    }


def _planted(today: Scored, funnel: Policy, night: ShopNight) -> dict[str, Policy]:
    fused = today.fused()
    counts = night.item_ids.to_frame().join(
        item_counts(night.days, night.days.last), on="item_id", how="left", maintain_order="left"
    )
    least = -counts["click_count"].fill_null(0).cast(pl.Float64).to_numpy()
    return {
        "worst of the candidates": _of_scores("planted", -fused, today.candidates),
        "another user's page": Policy(kind="planted", ranked=np.roll(funnel.ranked, 1, axis=0)),
        "places 21 to 30": Policy(
            kind="planted", ranked=np.roll(funnel.ranked, -20, axis=1)[:, : most_places("shown")]
        ),
        "least clicked": _of_scores("planted", np.broadcast_to(least, fused.shape), night.allowed),
        "page upside down": Policy(kind="planted", ranked=funnel.pages[:, ::-1]),
    }


def _bounds(night: ShopNight, today: Scored, truth: TrueValue, rng: np.random.Generator) -> dict[str, Policy]:
    best, allowed = truth.score(), night.allowed
    informed = _informed_scores(night, truth)
    return {
        "truth over the catalogue": _of_scores("bound", best, allowed),
        "truth over our candidates": _of_scores("bound", best, today.candidates),
        ORACLE: _of_scores("bound", informed, allowed),
        RANDOM: _of_scores("bound", rng.random(best.shape), allowed),
    }


def _informed_scores(night: ShopNight, truth: TrueValue) -> np.ndarray:
    """Score by the oracle that knows all items' factors and estimates the users from the log [U, J]."""
    shop, requests = night.shop, night.audience.requests
    before = night.audience.day - timedelta(days=1)
    history = read_labelled(night.log, shop.dials.first_day, before)
    estimates = estimate_users(shop, history, knows_appeal=False)
    ids, found = night.item_ids, []
    step = max(1, _ITEMS_AT_ONCE // ids.len())
    for start in range(0, requests.height, step):
        users = requests["user_id"][start : start + step]
        rows = pl.DataFrame(
            {
                "user_id": users.gather(np.repeat(np.arange(users.len()), ids.len())),
                "item_id": ids.gather(np.tile(np.arange(ids.len()), users.len())),
            }
        )
        said = informed_predictions(shop, estimates, rows)
        scores = truth.fusion.score({task: said[task].to_numpy() for task in said.columns})
        found.append(scores.reshape(users.len(), ids.len()))
    return np.concatenate(found)
