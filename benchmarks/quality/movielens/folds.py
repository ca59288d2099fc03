"""MovieLens-1M, rating: mean RMSE of the five published folds, from a model with two heads.

The heads are `rating` and `liked` (four stars or more); users are known by a bag of their other ratings, each
a movie and its stars. Settings and the epoch are chosen on a twentieth of each fold's training ratings; the
fold itself takes part in no choice of a run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality.baselines.biases import best_biases, fit_biases
from benchmarks.quality.models.bags import BagSetting
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pairs import Pairs, PairSetting, train_pairs
from benchmarks.quality.movielens.folds_reader import MovieLens, read_movielens
from benchmarks.quality.report import Figure, ModelRow, QualityReport, over_seeds, wanted_rows
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import auc, rmse
from recsys.model.trunks import TRUNKS
from recsys.tasks import TaskSpec

PUBLISHED = {
    f"{name} (Surprise)": {"rating": {"rmse": value}}
    for name, value in (("baseline", 0.909), ("knn_baseline", 0.895), ("svd", 0.873), ("svd++", 0.862))
}
TASKS = (
    TaskSpec(name="rating", feedback="rating", head="regression", window="1d"),
    TaskSpec(name="liked", feedback="rating", head="binary", window="1d", weight=0.3),
)
BIAS_MODEL = "bias_model"
SHAPE = TrunkConfig(name="mmoe", num_experts=2, task_experts=1, hidden=(48, 24))
BUDGET = Budget(epochs=10, learning_rate=2e-3, sparse_learning_rate=0.025, weight_decay=1e-4)
BAGS = BagSetting(users=128, hidden=0.2, passes=5, levels_of="rating")
DIM = 32
VALIDATION_SHARE = 0.05
BIAS_PENALTIES = (5.0, 10.0, 20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldScores:
    """One run's figures on a fold: validation and test RMSE of the stars, and AUC of `liked`."""

    known_rmse: float
    rmse: float
    known_auc: float
    auc: float
    epoch: int


def measure_movielens(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Train on four folds, score the fifth, five times and per seed."""
    wanted = wanted_rows([*TRUNKS, BIAS_MODEL], asked)
    data = read_movielens(folder)
    rows = []
    for name, shape in ((n, s) for n, s in setting().trunks(SHAPE).items() if n in wanted):
        runs = []
        for seed in range(seeds):
            for fold in range(len(data.folds)):
                runs.append(train_fold(data, fold, shape, seed))
                news(
                    f"{name}, seed {seed}, fold {fold + 1}: epoch {runs[-1].epoch}, "
                    f"validation RMSE {runs[-1].known_rmse:.4f}"
                )
        rows.append(_row(name, runs, seeds))
    if BIAS_MODEL in wanted:
        rows.append(_bias_row(data))
    return QualityReport(
        name="ml-1m",
        protocol="the five published folds; a twentieth of each training part for validation",
        interval="95 %, Student's over the five folds, each the mean of its seeds: how much folds differ",
        budget=f"one setting, found by hand on validation; {BUDGET.epochs} epochs, the best one kept",
        rows=tuple(rows),
        published=PUBLISHED,
        facts={"ratings": sum(f.size for f in data.folds), "users": data.sides.shape[0]},
    )


def train_fold(data: MovieLens, fold: int, shape: TrunkConfig, seed: int) -> FoldScores:
    """Train both heads without one fold and score it."""
    train, validation = data.but(fold).part(VALIDATION_SHARE)
    stars = validation.labels["rating"]
    model, epoch = train_pairs(
        data.sides, train, shape, setting(), seed, lambda m: rmse(stars, m.predict(validation)["rating"])
    )
    known, test = (_figures(part, model.predict(part)) for part in (validation, data.folds[fold]))
    return FoldScores(known_rmse=known[0], rmse=test[0], known_auc=known[1], auc=test[1], epoch=epoch)


def setting() -> PairSetting:
    """Give how every trunk is trained."""
    return PairSetting(tasks=TASKS, budget=BUDGET, dim=DIM, batch_size=0, weigh_product=True, bags=BAGS)


def _figures(ratings: Pairs, found: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Give RMSE of the stars and AUC of `liked`."""
    return rmse(ratings.labels["rating"], found["rating"]), auc(ratings.labels["liked"], found["liked"])


def _bias_row(data: MovieLens) -> ModelRow:
    shape = data.sides.shape
    known, test, chosen = [], [], []
    for fold, ratings in enumerate(data.folds):
        train, validation = data.but(fold).part(VALIDATION_SHARE)
        penalty, fitted = best_biases(fit_biases, (train, validation), "rating", BIAS_PENALTIES, shape)
        chosen.append(penalty)
        known.append(rmse(validation.labels["rating"], fitted.predict(validation)))
        final = fit_biases(data.but(fold), "rating", penalty, shape)
        test.append(rmse(ratings.labels["rating"], final.predict(ratings)))
    heads = {"rating": {"rmse": over_seeds(test, known)}}
    return ModelRow(name=BIAS_MODEL, heads=heads, seeds=1, note=f"penalty {chosen}", ours=False)


def _row(name: str, runs: Sequence[FoldScores], seeds: int) -> ModelRow:
    """Make a row of runs [seeds · folds], a seed's folds behind each other."""

    def over_folds(values: Sequence[float], validation: Sequence[float]) -> Figure:
        # Runs of one fold share its test rows: only the folds count as repeats.
        by_fold, known = (np.reshape(found, (seeds, -1)).mean(axis=0) for found in (values, validation))
        return over_seeds(by_fold.tolist(), known.tolist())

    heads: dict[str, dict[str, Figure]] = {
        "rating": {"rmse": over_folds([r.rmse for r in runs], [r.known_rmse for r in runs])},
        "liked": {"auc": over_folds([r.auc for r in runs], [r.known_auc for r in runs])},
    }
    return ModelRow(name=name, heads=heads, seeds=seeds, note=f"{len(runs)} runs: 5 folds a seed")
