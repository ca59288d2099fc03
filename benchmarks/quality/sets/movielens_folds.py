"""MovieLens-1M, rating: mean RMSE of the five published folds, from a model with two heads.

The heads are `rating` and `liked` (four stars or more); users are known by a bag of their other ratings, each
a movie and its stars. Settings and the epoch are chosen on a twentieth of each fold's training ratings; the
fold itself takes part in no choice of a run.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.quality.baselines.biases import best_biases, fit_biases, rating_error
from benchmarks.quality.models.bags import BagSetting
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pair_data import Pairs
from benchmarks.quality.models.pair_model import PairSetting, train_pairs
from benchmarks.quality.quality_set import Measure, Outputs, QualitySet, Row, Run, baseline
from benchmarks.quality.readers.folds_reader import MovieLensFolds, read_movielens_1m
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import rmse
from recsys.tasks import TaskSpec

PUBLISHED = {
    f"{name} (Surprise)": {"rating": {"rmse": value}}
    for name, value in (("baseline", 0.909), ("knn_baseline", 0.895), ("svd", 0.873), ("svd++", 0.862))
}
TASKS = (
    TaskSpec(name="rating", feedback="rating", head="regression", window="1d"),
    TaskSpec(name="liked", feedback="rating", head="binary", window="1d", weight=0.3),
)
METRICS = {"rating": "rmse", "liked": "auc"}
SHAPE = TrunkConfig(name="mmoe", num_experts=2, task_experts=1, hidden=(48, 24))
BUDGET = Budget(epochs=10, learning_rate=2e-3, sparse_learning_rate=0.025, weight_decay=1e-4)
BAGS = BagSetting(users=128, hidden=0.2, passes=5, levels_of="rating")
DIM = 32
VALIDATION_SHARE = 0.05
BIAS_PENALTIES = (5.0, 10.0, 20.0)

Predict = Callable[[Pairs], Outputs]
Fitted = tuple[Predict, Predict, str]
"""The model that validation chose, the one that is tested, and a note."""
Fit = Callable[[int, int], Fitted]
"""(fold, seed) -> models trained without the fold."""


def open_ml_1m(folder: Path, scratch: Path) -> QualitySet:
    """Read the folds; a seed trains on four folds and scores the fifth, five times."""
    del scratch
    data = read_movielens_1m(folder)
    fits = {name: partial(train_fold, data, shape) for name, shape in setting().trunks(SHAPE).items()}
    # Runs of one fold share its test rows: only the folds count as repeats.
    measures = [Measure(head=h, metric=m, output=h, repeats="places") for h, m in METRICS.items()]
    return QualitySet(
        name="ml-1m",
        protocol="the five published folds; a twentieth of each training part for validation",
        interval="95 %, Student's over the five folds, each the mean of its seeds: how much folds differ",
        budget=f"one setting, found by hand on validation; {BUDGET.epochs} epochs, the best one kept",
        rows={
            **{name: Row(partial(over_folds, data, fit)) for name, fit in fits.items()},
            "bias_model": baseline(partial(over_folds, data, partial(fit_bias_model, data), 0)),
        },
        validation=measures,
        test=measures,
        published=PUBLISHED,
        facts={"ratings": sum(f.size for f in data.folds), "users": data.sides.shape[0]},
    )


def over_folds(data: MovieLensFolds, fit: Fit, seed: int) -> Run:
    """Train without each fold and score it; the outputs are figures [folds]."""
    validation, test, notes = [], [], []
    for fold, ratings in enumerate(data.folds):
        chosen, final, note = fit(fold, seed)
        validation.append(_figures(data.but(fold).part(VALIDATION_SHARE)[1], chosen))
        test.append(_figures(ratings, final))
        notes.append(note)
    known, scored = ({h: np.array([one[h] for one in of]) for h in of[0]} for of in (validation, test))
    return Run(validation=known, test=scored, note=f"{', '.join(notes)} by fold")


def _figures(ratings: Pairs, predict: Predict) -> dict[str, float]:
    """Measure the heads that a model has."""
    found = predict(ratings)
    return {m.head: m.value(found) for m in ratings.measures(METRICS) if m.output in found}


def train_fold(data: MovieLensFolds, shape: TrunkConfig, fold: int, seed: int) -> Fitted:
    """Train both heads without one fold."""
    train, validation = data.but(fold).part(VALIDATION_SHARE)
    stars = validation.labels["rating"]
    model, epoch = train_pairs(
        data.sides, train, shape, setting(), seed, lambda m: rmse(stars, m.predict(validation)["rating"])
    )
    return model.predict, model.predict, f"epoch {epoch}"


def fit_bias_model(data: MovieLensFolds, fold: int, seed: int) -> Fitted:
    """Choose the penalty on validation and fit again on all of the other folds."""
    del seed
    train, validation = data.but(fold).part(VALIDATION_SHARE)
    shape = data.sides.shape
    penalty, chosen = best_biases(train, "rating", BIAS_PENALTIES, shape, rating_error(validation))
    final = fit_biases(data.but(fold), "rating", penalty, shape)
    return (
        lambda pairs: {"rating": chosen.predict(pairs)},
        lambda pairs: {"rating": final.predict(pairs)},
        f"penalty {penalty:g}",
    )


def setting() -> PairSetting:
    """Give how every trunk is trained."""
    return PairSetting(tasks=TASKS, budget=BUDGET, dim=DIM, batch_size=0, weigh_product=True, bags=BAGS)
