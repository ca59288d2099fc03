"""Harm that is planted into a night's facts; each returns the night with it."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import polars as pl
from scipy.special import logit

from benchmarks.nightly.drawn_nights import SERVED, BenchShop, Night, pages_of, with_predictions
from recsys.config import GateConfig
from recsys.metrics.columns import Vector

Plant = Callable[[BenchShop, Night, np.random.Generator], Night]


def _rescored(shop: BenchShop, night: Night, **predictions: Vector) -> Night:
    """Give the challenger other predictions, and the pages and the refit that follow."""
    known = {task.name: night.challenger[f"prediction_{task.name}"].to_numpy() for task in shop.tasks}
    made = with_predictions(night.challenger, known | predictions, night.fusion)
    return replace(night, challenger=made, pages=(pages_of(made), night.pages[1]), refitted=made)


def shuffled_labels(shop: BenchShop, night: Night, rng: np.random.Generator) -> Night:
    """Train on labels that belong to other rows: predictions of the right mean that say nothing."""
    return _rescored(
        shop,
        night,
        click=rng.permutation(night.challenger["prediction_click"].to_numpy()),
        purchase=rng.permutation(night.challenger["prediction_purchase"].to_numpy()),
    )


def stale_features(shop: BenchShop, night: Night, rng: np.random.Generator) -> Night:
    """Know users and items as of weeks ago: the common part of the truth is seen through much more noise."""
    error = rng.normal(0, 1.2, shop.click.size)
    click = shop.calibrated(logit(shop.click) + error, shop.click * shop.examination)
    truth = shop.click * shop.bought
    purchase = shop.calibrated(logit(truth) + error, truth * shop.examination)
    return _rescored(shop, night, click=click, purchase=purchase)


def broken_calibrator(shop: BenchShop, night: Night, _: np.random.Generator) -> Night:
    """Say twice what happens."""
    return _rescored(shop, night, click=np.minimum(2 * night.challenger["prediction_click"].to_numpy(), 0.99))


def broken_rare_calibrator(_: BenchShop, night: Night, __: np.random.Generator) -> Night:
    """Say tenfold purchases; their order, and nearly all of an absolute error, stay."""
    tenfold = np.minimum(10 * night.challenger["prediction_purchase"].to_numpy(), 0.99)
    made = night.challenger.with_columns(
        pl.Series(f"{held}prediction_purchase", tenfold) for held in ("", "list_")
    )
    return replace(night, challenger=made)


def popularity_collapse(_: BenchShop, night: Night, __: np.random.Generator) -> Night:
    """Show everybody the items that are shown most; heads are as they were."""
    common = night.challenger["item_id"].value_counts(sort=True)["item_id"].head(10).to_list()
    return replace(night, pages=([common] * len(night.pages[1]), night.pages[1]))


def negative_weight(shop: BenchShop, night: Night, _: np.random.Generator) -> Night:
    """Turn the sign of the first head's weight."""
    terms = dict(night.fusion.terms)
    first = shop.tasks[0].name
    terms[first] = terms[first].model_copy(update={"weight": -terms[first].weight})
    turned = night.fusion.model_copy(update={"terms": terms})
    return _rescored(shop, replace(night, fusion=turned))


def bad_index(_: BenchShop, night: Night, __: np.random.Generator) -> Night:
    """Find four in five of the nearest items."""
    return replace(night, served=night.served.model_copy(update={"index_recall": 0.8}))


def slow_model(_: BenchShop, night: Night, __: np.random.Generator) -> Night:
    """Take four times the time."""
    return replace(night, served=night.served.model_copy(update={"request_ms": 4 * SERVED.request_ms}))


def bad_segment(shop: BenchShop, night: Night, rng: np.random.Generator) -> Night:
    """Say nothing about requests of one device, the one with the fewest rows that is compared."""
    devices = night.challenger.group_by("context_device").agg(
        pl.len(), pl.col("user_id").n_unique().alias("users")
    )
    least = devices.filter(pl.col("users") >= GateConfig().min_segment_users).sort("len")["context_device"][0]
    there = (night.challenger["context_device"] == least).to_numpy()
    click = night.challenger["prediction_click"].to_numpy().copy()
    click[there] = rng.permutation(click[there])
    return _rescored(shop, night, click=click)


def poisoned_refit(_: BenchShop, night: Night, __: np.random.Generator) -> Night:
    """Learn from two days on which a bot clicked on everything: what goes live says three times as much."""
    thrice = pl.col("prediction_click", "list_prediction_click") * 3
    return replace(night, refitted=night.challenger.with_columns(thrice.clip(0, 0.99)))


def a_tenth_less_value(shop: BenchShop, night: Night, rng: np.random.Generator) -> Night:
    """Blend the score with noise until the true value of its order, from nothing on, is a tenth lower."""
    noise = rng.normal(size=shop.click.size)
    score = night.challenger["score"].to_numpy()
    unit = (score - score.mean()) / score.std()
    wanted, low, high = 0.9 * true_value(shop, night, score), -1.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        blend = middle * unit + (1 - abs(middle)) * noise
        low, high = (middle, high) if true_value(shop, night, blend) < wanted else (low, middle)
    blend = high * unit + (1 - abs(high)) * noise
    made = night.challenger.with_columns(pl.Series(name, blend) for name in ("score", "list_score"))
    return replace(night, challenger=made)


def true_value(shop: BenchShop, night: Night, score: Vector) -> float:
    """Give the expected value of all lists in the order of a score: clicks and purchases by their weights."""
    weights = night.fusion.weights
    value = shop.click * (weights["click"] + weights["purchase"] * shop.bought)
    order = np.lexsort((-score, night.challenger["list_group"].to_numpy()))
    at = np.lexsort((-shop.examination, night.challenger["list_group"].to_numpy()))
    return float(value[order] @ shop.examination[at])


PLANTS: Mapping[str, Plant] = {
    "shuffled labels": shuffled_labels,
    "stale features": stale_features,
    "broken calibrator": broken_calibrator,
    "broken calibrator of a rare head": broken_rare_calibrator,
    "popularity collapse": popularity_collapse,
    "negative fusion weight": negative_weight,
    "bad index": bad_index,
    "slow model": slow_model,
    "one bad segment": bad_segment,
    "poisoned refit": poisoned_refit,
    "a tenth less list value": a_tenth_less_value,
}
