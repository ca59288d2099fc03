"""Book-Crossing: who has which book, and the rating 1 to 10 of the fifth of those that have one.

The split is ours, as none is published: a fifth of every user's books is the test, a tenth validates, drawn
once for all rows and seeds. Ratings are missing not at random and no ratings of books drawn at random exist:
a row with weights by inverse propensity is evaluated on chosen ratings, which can show its cost, not its use.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality.baselines.biases import best_biases, fit_biases, rating_error
from benchmarks.quality.baselines.item_rankers import ranker_rows
from benchmarks.quality.baselines.tuned_trees import tuned_trees
from benchmarks.quality.catalogue_lists import (
    Lists,
    Scorer,
    kept_scorer,
    list_measures,
    list_outputs,
    mean_ndcg,
    model_scorer,
    positives,
    split_with_lists,
)
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.item_tables import NAME, TOGETHER, TableRows
from benchmarks.quality.models.negatives import negatives_of
from benchmarks.quality.models.pair_data import Pairs, Sides, Split
from benchmarks.quality.models.pair_model import PairModel, PairSetting, train_pairs
from benchmarks.quality.models.spectral import spectral_start
from benchmarks.quality.quality_set import QualitySet, Row, Run, baseline
from benchmarks.quality.readers.caserec_reader import read_bookcrossing
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import rmse
from recsys.model.trunks import TRUNKS
from recsys.tasks import TaskSpec
from training.baselines.boosted_trees import TreeRows

INTERACTION = TaskSpec(name="interaction", feedback="interaction", head="binary", window="1d")
RATING = TaskSpec(
    name="rating", feedback="rating", head="regression", window="1d", space="observed", low=1.0, high=10.0
)
SHAPE = TrunkConfig(name="mmoe", num_experts=2, task_experts=1, hidden=(48, 24))
BUDGET = Budget(epochs=4, learning_rate=4e-3, sparse_learning_rate=0.03, weight_decay=1e-4)
DIM = 32
BATCH_SIZE = 4096
ROW_DROPOUT = 0.5
START_SCALE, START_PENALTY = 40.0, 5.0
"""Of the spectral start's products; of the biases that ratings start from."""
NEGATIVES = 1
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
TEST_USERS, VALIDATION_USERS, EPOCH_USERS = 2_946, 1_000, 30
"""At most so many users' lists, drawn once for all rows; the last for the choice of the epoch.
All users are tested."""
ALONE, DEBIASED = "rating_alone", "mmoe_ips"
BIAS_PENALTIES = (1.0, 5.0, 10.0, 20.0)
TREE_PENALTY = 5.0
NUM_FOLDS = 5
"""Of the training ratings, so that a tree's training row never sees a bias that its own rating moved."""
TRIALS = 3


def open_book_crossing(folder: Path, scratch: Path) -> QualitySet:
    """Read and split the set; every trunk with both heads, the rating alone, and with weights."""
    del scratch
    shares, users = (TEST_SHARE, VALIDATION_SHARE), (TEST_USERS, VALIDATION_USERS)
    split, lists = split_with_lists(*read_bookcrossing(folder), shares, (INTERACTION.name,), users)
    known, test = (rated(part).measures({"rating": "rmse"}) for part in (split.validation, split.test))
    # Kept for the row of all parts.
    trained, tables = cache(partial(train_row, split, lists, SHAPE.name)), TableRows(split, lists)
    return QualitySet(
        name="book-crossing",
        protocol="our split (none is published): per user 70 / 10 / 20 % of the books, rated or not; ratings "
        f"of held-out books; lists of all books but the user's training ones, at most {TEST_USERS} users",
        interval="95 %, bootstrap of users, all seeds on each draw; differences draw seeds too",
        budget=f"one setting for all our rows, by hand on validation; {BUDGET.epochs} epochs, the best kept",
        rows={
            **{name: Row(partial(_alone, split, lists, name)) for name in (*TRUNKS, DEBIASED)},
            SHAPE.name: Row(lambda seed: trained(seed)[0]),
            NAME: tables.alone(),
            TOGETHER: Row(lambda seed: tables.beside(*trained(seed))),
            ALONE: Row(partial(_alone, split, lists, ALONE), ours=False),
            "mean": baseline(partial(mean_rating, split)),
            "bias_model": baseline(partial(bias_model, split)),
            "lightgbm": baseline(partial(trees, split)),
            **ranker_rows(split, lists),
        },
        validation=[*known, *list_measures([INTERACTION.name])],
        test=[*test, *list_measures([INTERACTION.name])],
        # Does sharing help the rating, and do weights?
        questions=(("mmoe", ALONE), (DEBIASED, "mmoe")),
        facts={
            "train_ratings": rated(split.train).size,
            "test_ratings": rated(split.test).size,
            "test_lists": lists[INTERACTION.name][1].users.size,
        },
    )


def rated(pairs: Pairs) -> Pairs:
    """Select the pairs that have a rating."""
    return pairs.take(~np.isnan(pairs.labels["rating"]))


def _alone(split: Split, lists: Lists, name: str, seed: int) -> Run:
    return train_row(split, lists, name, seed)[0]


def train_row(split: Split, lists: Lists, name: str, seed: int) -> tuple[Run, Scorer]:
    """Train one of our rows; the epoch has the least rating RMSE less NDCG (of some lists) on validation.

    The rating alone sees the same batches, as many steps of as many ratings, without the other label.
    Returns: the run, and what its lists go by.
    """
    known, test = lists[INTERACTION.name]
    stars, few = rated(split.validation), known.some(EPOCH_USERS)

    def loss(model: PairModel) -> float:
        error = rmse(stars.labels["rating"], model.predict(stars)["rating"])
        return error if name == ALONE else error - mean_ndcg(model_scorer(model, INTERACTION.name), few)

    setting = setting_of(name)
    shape = setting.trunks(SHAPE)[name if name in TRUNKS else SHAPE.name]
    unrated = {INTERACTION.name: 0.0, RATING.name: np.nan}
    drawn = negatives_of(split.train, split.sides.shape[1], NEGATIVES, unrated)
    begin = partial(start, split)
    model, _ = train_pairs(split.sides, split.train, shape, setting, seed, loss, drawn, begin)
    outputs = [{"rating": model.predict(part)["rating"]} for part in (stars, rated(split.test))]
    score = model_scorer(model, INTERACTION.name)
    if name != ALONE:
        score = kept_scorer(score, lists)
        for found, of in zip(outputs, (known, test), strict=True):
            found |= list_outputs(INTERACTION.name, score, of)
    return Run(validation=outputs[0], test=outputs[1]), score


def start(split: Split, model: PairModel) -> None:
    """Set a new model's lists, where it makes any, to PureSVD's, and its ratings to biases."""
    if len(model.tasks) > 1:
        vectors = spectral_start(positives(split.train, split.sides.shape), DIM, START_SCALE)
        vectors.put(model, INTERACTION.name)
    else:
        torch.nn.init.zeros_(model.ranker.product)
    fit_biases(rated(split.train), RATING.name, START_PENALTY, split.sides.shape).put(model, RATING.name)


def setting_of(name: str) -> PairSetting:
    """Give how a row is trained: all the same, but for heads and weights."""
    rating = RATING.model_copy(update={"debias": "ips" if name == DEBIASED else None})
    tasks = (rating,) if name == ALONE else (INTERACTION, rating)
    return PairSetting(tasks=tasks, budget=BUDGET, dim=DIM, batch_size=BATCH_SIZE, row_dropout=ROW_DROPOUT)


def mean_rating(split: Split) -> Run:
    """Predict the mean of the training ratings."""
    value = float(rated(split.train).labels["rating"].mean(dtype=np.float64))
    return _ratings(split, lambda pairs: np.full(pairs.size, value))


def bias_model(split: Split) -> Run:
    """Predict by users' and books' biases; their penalty is chosen on validation."""
    train, error = rated(split.train), rating_error(rated(split.validation))
    penalty, fitted = best_biases(train, "rating", BIAS_PENALTIES, split.sides.shape, error)
    return _ratings(split, fitted.predict, f"penalty {penalty:g}")


def _ratings(split: Split, predict: Callable[[Pairs], np.ndarray], note: str = "") -> Run:
    known, test = ({"rating": predict(rated(part))} for part in (split.validation, split.test))
    return Run(validation=known, test=test, note=note)


def trees(split: Split) -> Run:
    """Fit LightGBM; settings from the frozen space and the number of trees are chosen on validation.

    Raises: ConfigError when LightGBM is not installed.
    """
    train, validation, shape = rated(split.train), rated(split.validation), split.sides.shape
    fold = np.random.default_rng(0).integers(NUM_FOLDS, size=train.size)
    crossed = np.empty(train.size)
    for one in range(NUM_FOLDS):
        others, mine = train.take(fold != one), train.take(fold == one)
        crossed[fold == one] = fit_biases(others, "rating", TREE_PENALTY, shape).predict(mine)
    of_all = fit_biases(train, "rating", TREE_PENALTY, shape)

    def features(pairs: Pairs) -> np.ndarray:
        return tree_features(split.sides, split.train, pairs, of_all.predict(pairs))

    trained = tree_features(split.sides, split.train, train, crossed, among_known=True)
    found = tuned_trees(
        TreeRows(features=trained, label=train.labels["rating"]),
        TreeRows(features=features(validation), label=validation.labels["rating"]),
        binary=False,
        categories=range(split.sides.user_ids.shape[1] + split.sides.item_ids.shape[1] - 2),
        trials=TRIALS,
    )
    note = f"{TRIALS} trials, {found.count} trees"
    return _ratings(split, lambda pairs: found.predict(features(pairs)), note)


def tree_features(
    sides: Sides, known: Pairs, pairs: Pairs, bias: np.ndarray, *, among_known: bool = False
) -> np.ndarray:
    """Give the columns of both sides as codes, the log counts of user and book among known pairs, the bias.

    Args: among_known: the pairs are known ones themselves; no row counts itself, as no held-out row does.
    Returns: float32 [N, F]; the columns first.
    """
    ids = [sides.user_ids[:, 1:][pairs.user], sides.item_ids[:, 1:][pairs.item]]
    lows = [sides.user_ids[:, 1:].min(axis=0), sides.item_ids[:, 1:].min(axis=0)]
    codes = np.concatenate([i - low for i, low in zip(ids, lows, strict=True)], axis=1)
    counts = [
        np.log1p(np.bincount(of, minlength=num)[who] - among_known)
        for of, who, num in zip((known.user, known.item), (pairs.user, pairs.item), sides.shape, strict=True)
    ]
    return np.column_stack([codes, *counts, bias]).astype(np.float32)
