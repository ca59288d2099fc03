"""MovieLens-1M, rating: mean RMSE of the five published folds, from a model with two heads.

The heads are `rating` and `liked` (four stars or more). Settings and the epoch are chosen on a twentieth of
each fold's training ratings; the fold itself takes part in no choice of a run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from recsys.batch import Batch
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import auc, rmse
from recsys.model.embeddings import LocalTables
from recsys.model.head_kinds import HEAD_KINDS
from recsys.model.pairs import PairRanker
from recsys.model.tabular import COLUMNS, tabular_batch, tabular_specs
from recsys.tasks import TaskSpec
from training.quality.fitting import Budget, fit_best
from training.quality.movielens_reader import MovieLens, Ratings, read_movielens
from training.quality.report import Figure, ModelRow, QualityReport, over_seeds, wanted_rows
from training.trainer import FitSettings, has_fast_bf16

PUBLISHED = {
    f"{name} (Surprise)": {"rating": {"rmse": value}}
    for name, value in (("baseline", 0.909), ("knn_baseline", 0.895), ("svd", 0.873), ("svd++", 0.862))
}
TASKS = (
    TaskSpec(name="rating", feedback="rating", head="regression", window="1d"),
    TaskSpec(name="liked", feedback="rating", head="binary", window="1d", weight=0.3),
)
LIKED = 4.0
BIAS_MODEL = "bias_model"
SHAPES = {
    "mmoe": TrunkConfig(name="mmoe", num_experts=2, hidden=(48, 24)),
}
BUDGET = Budget(epochs=8, learning_rate=2e-3, sparse_learning_rate=0.04, weight_decay=1e-4)
DIM = 32
START_SCALE = 10.0
"""Sides multiply each other: from rows near 0 their product would hardly start to learn."""
HEAD_HIDDEN = 16
DROPOUT = 0.0
ROW_DROPOUT = 0.2
BATCH_SIZE = 4096
SCORE_ROWS = 50_000
VALIDATION_SHARE = 0.05
BIAS_SWEEPS = 10
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
    wanted = wanted_rows([*SHAPES, BIAS_MODEL], asked)
    data = read_movielens(folder)
    rows = []
    for name, shape in ((n, s) for n, s in SHAPES.items() if n in wanted):
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
        interval="95 %, Student's over folds and seeds: how much folds and seeds differ",
        budget=f"one setting, found by hand on validation; {BUDGET.epochs} epochs, the best one kept",
        rows=tuple(rows),
        published=PUBLISHED,
        facts={"ratings": sum(f.size for f in data.folds), "users": len(data.user_ids)},
    )


def train_fold(data: MovieLens, fold: int, shape: TrunkConfig, seed: int) -> FoldScores:
    """Train both heads without one fold and score it."""
    torch.manual_seed(seed)
    train, validation = _split(data.but(fold))
    rng = np.random.default_rng(seed)
    model = PairRanker(
        TASKS,
        num_user_columns=data.user_ids.shape[1],
        dim=DIM,
        trunk=shape,
        head_hidden=HEAD_HIDDEN,
        dropout=DROPOUT,
        row_dropout=ROW_DROPOUT,
    )
    specs = tabular_specs(data.num_ids, DIM, len(TASKS))
    tables = LocalTables(specs, BUDGET.sparse_learning_rate, seed)
    tables.weight[COLUMNS] *= START_SCALE
    epoch = fit_best(
        model,
        tables,
        lambda: _batches(data, train, rng),
        TASKS,
        _settings(train.size),
        epochs=BUDGET.epochs,
        decay=BUDGET.decay,
        loss=lambda: rmse(validation.stars, predict(model, tables, data, validation)["rating"]),
    )
    model.eval()
    test = data.folds[fold]
    known, found = predict(model, tables, data, validation), predict(model, tables, data, test)
    return FoldScores(
        known_rmse=rmse(validation.stars, known["rating"]),
        rmse=rmse(test.stars, found["rating"]),
        known_auc=auc(validation.stars >= LIKED, known["liked"]),
        auc=auc(test.stars >= LIKED, found["liked"]),
        epoch=epoch,
    )


@torch.no_grad()
def predict(
    model: PairRanker, tables: LocalTables, data: MovieLens, ratings: Ratings
) -> dict[str, np.ndarray]:
    """Give stars within their range, and probabilities of four or more: [N] per task."""
    found: dict[str, list[np.ndarray]] = {t.name: [] for t in TASKS}
    for start in range(0, ratings.size, SCORE_ROWS):
        batch = _batch(data, ratings.take(np.arange(start, min(start + SCORE_ROWS, ratings.size))))
        logits, _, _ = model(batch, tables.lookup(batch.rows))
        for task in TASKS:
            found[task.name].append(HEAD_KINDS[task.head].predict(logits[task.name], task).numpy())
    stars, liked = (np.concatenate(found[t.name]) for t in TASKS)
    return {"rating": stars.clip(TASKS[0].low, TASKS[0].high), "liked": liked}


def bias_model(train: Ratings, ratings: Ratings, penalty: float, shape: tuple[int, int]) -> np.ndarray:
    """Predict mean + item's bias + user's bias, each shrunk by `penalty` imaginary average ratings.

    Args: shape: users, items.
    Source: Koren, Bell & Volinsky, IEEE Computer 2009.
    """
    mean = train.stars.mean(dtype=np.float64)
    user, item = np.zeros(shape[0]), np.zeros(shape[1])
    for _ in range(10):
        left = train.stars - mean - user[train.user]
        item = np.bincount(train.item, left, shape[1]) / (
            np.bincount(train.item, minlength=shape[1]) + penalty
        )
        left = train.stars - mean - item[train.item]
        user = np.bincount(train.user, left, shape[0]) / (
            np.bincount(train.user, minlength=shape[0]) + penalty
        )
    found: np.ndarray = (mean + user[ratings.user] + item[ratings.item]).clip(1, 5)
    return found


def _bias_row(data: MovieLens) -> ModelRow:
    shape = len(data.user_ids), len(data.item_ids)
    known, test, chosen = [], [], []
    for fold, ratings in enumerate(data.folds):
        train, validation = _split(data.but(fold))
        tried = {p: rmse(validation.stars, bias_model(train, validation, p, shape)) for p in BIAS_PENALTIES}
        chosen.append(min(tried, key=lambda p: tried[p]))
        known.append(tried[chosen[-1]])
        test.append(rmse(ratings.stars, bias_model(data.but(fold), ratings, chosen[-1], shape)))
    heads = {"rating": {"rmse": over_seeds(test, known)}}
    return ModelRow(name=BIAS_MODEL, heads=heads, seeds=1, note=f"penalty {chosen}", ours=False)


def _row(name: str, runs: Sequence[FoldScores], seeds: int) -> ModelRow:
    heads: dict[str, dict[str, Figure]] = {
        "rating": {"rmse": over_seeds([r.rmse for r in runs], [r.known_rmse for r in runs])},
        "liked": {"auc": over_seeds([r.auc for r in runs], [r.known_auc for r in runs])},
    }
    return ModelRow(name=name, heads=heads, seeds=seeds, note=f"{len(runs)} runs: 5 folds a seed")


def _split(ratings: Ratings) -> tuple[Ratings, Ratings]:
    """Part training ratings into those to learn from and those to choose on."""
    out = np.random.default_rng(0).random(ratings.size) < VALIDATION_SHARE
    return ratings.take(~out), ratings.take(out)


def _batches(data: MovieLens, ratings: Ratings, rng: np.random.Generator) -> Iterator[Batch]:
    order = rng.permutation(ratings.size)
    size = min(BATCH_SIZE, ratings.size)
    for start in range(0, ratings.size - size + 1, size):
        yield _batch(data, ratings.take(order[start : start + size]))


def _batch(data: MovieLens, ratings: Ratings) -> Batch:
    ids = np.concatenate([data.user_ids[ratings.user], data.item_ids[ratings.item]], axis=1)
    stars = torch.from_numpy(ratings.stars)
    labels = {"rating": stars, "liked": (stars >= LIKED).float()}
    return tabular_batch(torch.from_numpy(ids), torch.zeros(ratings.size, 0), labels, data.num_ids)


def _settings(num_rows: int) -> FitSettings:
    steps = BUDGET.epochs * max(1, num_rows // BATCH_SIZE)
    return FitSettings(
        learning_rate=BUDGET.learning_rate,
        weight_decay=BUDGET.weight_decay,
        retrieval_task=None,
        temperature=1.0,
        total_steps=steps,
        warmup_steps=min(50, steps // 10),
        bf16=has_fast_bf16(),
    )
