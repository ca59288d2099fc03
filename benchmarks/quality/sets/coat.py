"""Coat: does weighting by inverse propensities lower the error on coats drawn at random?

With the published random test ratings they are the test, as in Schnabel et al., ICML 2016: a fifth of the
self-selected ratings validates, five times over. Without them every fifth of those ratings is held out once,
and the error on coats drawn at random is *estimated* from them by SNIPS with the published propensities.
These are a model of which pairs were chosen, from both sides' features, fitted to all self-selected pairs:
the held-out fifths too, so they are not out of sample where they are used. The plain error on the held-out
fifths stands beside it.

The library's own `debias = "ips"` weights the loss, by propensities that are published or that it estimates
itself from which pairs are rated. Every row sees all pairs in its batches, so rows differ in weights alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.quality.baselines.biases import best_biases
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pair_data import Pairs, Sides, joined, number_sides
from benchmarks.quality.models.pair_model import PairSetting, train_pairs
from benchmarks.quality.quality_set import Measure, QualitySet, Row, Run, baseline
from benchmarks.quality.readers.coat_reader import NUM_FOLDS, Coat, Part, read_coat, split_coat
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import rmse
from recsys.model.trunks import TRUNKS
from recsys.tasks import TaskSpec

LIKED = 4.0
"""Stars from which a coat is liked, the second head."""
SHAPE = TrunkConfig(name="mmoe", num_experts=2, task_experts=1, hidden=(32, 16))
BUDGET = Budget(epochs=6, learning_rate=2e-3, sparse_learning_rate=0.04, weight_decay=1e-4)
DIM = 16
BATCH_SIZE = 4096
ROW_DROPOUT = 0.1
BIAS_PENALTIES = (1.0, 5.0, 20.0)

Predict = Callable[[Pairs], dict[str, np.ndarray]]
"""Rows [N] -> head -> predictions [N]."""
ESTIMATED = (
    "five fifths of the self-selected ratings, each held out once (our split), a tenth of the rest for "
    "validation; no random test in the folder: snips_rmse and snips_auc estimate it"
)
TESTED = "tested on the random ratings; a fifth of the self-selected ones for validation, five times"


@dataclass(frozen=True, slots=True)
class Variant:
    """How a row of ours is trained."""

    trunk: str
    weights: Literal["none", "published", "estimated"] = "none"
    """Whose propensities weigh the loss."""
    features: bool = True


VARIANTS = {
    "mmoe": Variant("mmoe"),
    "mmoe_ips": Variant("mmoe", "published"),
    "mmoe_ips_estimated": Variant("mmoe", "estimated"),
    "mmoe_ids": Variant("mmoe", features=False),
    "mmoe_ids_ips": Variant("mmoe", "published", features=False),
    "mmoe_ids_ips_estimated": Variant("mmoe", "estimated", features=False),
    **{trunk: Variant(trunk) for trunk in TRUNKS if trunk != "mmoe"},
    "single_task_ips": Variant("single_task", "published"),
}


def open_coat(folder: Path, scratch: Path) -> QualitySet:
    """Read the set; every row is trained five times a seed."""
    del scratch
    data = read_coat(folder)
    weight = 1 / data.propensity[~np.isnan(data.stars)]
    ours: dict[str, Fit] = {name: partial(train_variant, data, v) for name, v in VARIANTS.items()}
    simple: dict[str, Fit] = {
        "mean": partial(fit_mean, data, weighted=False),
        "mean_ips": partial(fit_mean, data, weighted=True),
        "bias_model": partial(fit_bias_model, data),
    }
    return QualitySet(
        name="coat",
        protocol=ESTIMATED if data.test is None else TESTED,
        interval="95 %, bootstrap of users, all runs on each draw; differences draw seeds too",
        budget=f"one setting for all rows, by hand on validation; {BUDGET.epochs} epochs, the best kept",
        rows={
            **{name: Row(partial(runs_of, data, fit)) for name, fit in ours.items()},
            **{name: baseline(partial(runs_of, data, fit, 0)) for name, fit in simple.items()},
        },
        validation=[Measure(head="rating", metric=_named(data, "rmse"), output="rating")],
        test=_measures(data),
        questions=tuple((name, name.split("_ips")[0]) for name in VARIANTS if "_ips" in name),
        facts={
            "ratings": weight.size,
            "effective_ratings": float(weight.sum() ** 2 / np.square(weight).sum()),
            "random_test_ratings": 0 if data.test is None else int((~np.isnan(data.test)).sum()),
        },
    )


def _named(data: Coat, metric: str) -> str:
    return f"snips_{metric}" if data.test is None else metric


def _measures(data: Coat) -> list[Measure]:
    """Measure on random pairs, or estimate it by weights and measure the chosen pairs beside it."""
    pairs = joined([tested_pairs(data, fold) for fold in range(NUM_FOLDS if data.test is None else 1)])
    plain = pairs.measures({"rating": "rmse", "liked": "auc"})
    if data.test is not None:
        return plain
    weight = 1 / data.propensity[pairs.user, pairs.item]
    return [one for m in plain for one in (replace(m, metric=_named(data, m.metric), weight=weight), m)]


def runs_of(data: Coat, fit: "Fit", seed: int) -> list[Run]:
    """Train on each fold and predict what is tested.

    Folds that are held out are put together to one run; each model is a run on the random test.
    """
    found = []
    for fold in range(NUM_FOLDS):
        part = split_coat(data, fold)
        predict = fit(part, seed)
        known = rating_snips(coat_pairs(data, part.validation, data.stars), predict)
        found.append(Run(validation={"rating": np.array([known])}, test=predict(tested_pairs(data, fold))))
    if data.test is not None:
        return found
    together = [
        {name: np.concatenate([of[name] for of in outputs]) for name in outputs[0]}
        for outputs in ([run.validation for run in found], [run.test for run in found])
    ]
    return [Run(validation=together[0], test=together[1])]


def tested_pairs(data: Coat, fold: int) -> Pairs:
    """Give the pairs that a fold's model is tested on."""
    if data.test is None:
        return coat_pairs(data, split_coat(data, fold).held_out, data.stars)
    return coat_pairs(data, ~np.isnan(data.test), data.test)


Fit = Callable[[Part, int], Predict]
"""(a fold's part, seed) -> a trained model."""


def train_variant(data: Coat, variant: Variant, part: Part, seed: int) -> Predict:
    """Train a row of ours; SNIPS of the validation ratings chooses its epoch, whatever its weights.

    Pairs held out or for validation are in no batch; all others are, rated or not.
    """
    stars = np.where(part.train, data.stars, np.nan).astype(np.float32)
    train = coat_pairs(data, ~(part.validation | part.held_out), stars)
    if variant.weights != "published":
        train = replace(train, propensity=None)
    validation, setting = coat_pairs(data, part.validation, data.stars), _setting(variant)
    sides = coat_sides(data, features=variant.features)
    shape = setting.trunks(SHAPE)[variant.trunk]
    model, _ = train_pairs(
        sides, train, shape, setting, seed, lambda model: rating_snips(validation, model.predict)
    )
    return model.predict


def fit_mean(data: Coat, part: Part, seed: int, *, weighted: bool) -> Predict:
    """Predict the mean of the training stars, or their mean by inverse propensity."""
    del seed
    weight = 1 / data.propensity[part.train] if weighted else None
    value = float(np.average(data.stars[part.train], weights=weight))
    return lambda pairs: {"rating": np.full(pairs.size, value)}


def fit_bias_model(data: Coat, part: Part, seed: int) -> Predict:
    """Predict the stars by users' and coats' biases; the penalty is chosen on validation."""
    del seed
    train, validation = (coat_pairs(data, mask, data.stars) for mask in (part.train, part.validation))
    _, chosen = best_biases(
        train,
        "rating",
        BIAS_PENALTIES,
        data.stars.shape,
        lambda biases: rating_snips(validation, lambda pairs: {"rating": biases.predict(pairs)}),
    )
    return lambda pairs: {"rating": chosen.predict(pairs)}


def rating_snips(pairs: Pairs, predict: Predict) -> float:
    """Estimate what predictions of some self-selected ratings say of the RMSE on pairs drawn at random."""
    assert pairs.propensity is not None
    return snips_rmse(pairs.labels["rating"], predict(pairs)["rating"], pairs.propensity)


def snips_rmse(stars: np.ndarray, prediction: np.ndarray, propensity: np.ndarray) -> float:
    """Estimate the RMSE on pairs drawn at random from pairs that users chose, self-normalised.

    Args: all [N]; propensity in (0, 1): that the pair is rated.
    Source: Swaminathan & Joachims, NeurIPS 2015; for ratings Schnabel et al., ICML 2016.
    """
    return rmse(stars, prediction, 1 / propensity)


def coat_sides(data: Coat, *, features: bool) -> Sides:
    """Number users and coats, and their features' columns where wanted."""
    own = [np.arange(num) for num in data.stars.shape]
    if not features:
        return number_sides(own[:1], own[1:])
    return number_sides([own[0], *data.user_columns.T], [own[1], *data.item_columns.T])


def coat_pairs(data: Coat, mask: np.ndarray, stars: np.ndarray) -> Pairs:
    """Make rows of the pairs in a mask [U, I]; both labels are NaN where `stars` [U, I] are."""
    user, item = np.nonzero(mask)
    given = stars[mask]
    liked = np.where(np.isnan(given), np.nan, given >= LIKED).astype(np.float32)
    return Pairs(
        user=user, item=item, labels={"rating": given, "liked": liked}, propensity=data.propensity[mask]
    )


def _setting(variant: Variant) -> PairSetting:
    debias = None if variant.weights == "none" else "ips"
    kinds = (("rating", "regression", 1.0), ("liked", "binary", 0.3))
    tasks = tuple(
        TaskSpec(name=n, feedback="rating", head=h, window="1d", weight=w, space="observed", debias=debias)
        for n, h, w in kinds
    )
    return PairSetting(tasks=tasks, budget=BUDGET, dim=DIM, batch_size=BATCH_SIZE, row_dropout=ROW_DROPOUT)
