"""Simple models of Book-Crossing's ratings: the mean, biases, and LightGBM on columns, counts and biases.

Shapes: N rows, F features.
"""

from collections.abc import Callable

import numpy as np

from benchmarks.quality.baselines.biases import fit_biases
from benchmarks.quality.baselines.trees import TreeRows, tuned_trees
from benchmarks.quality.full_lists import Parts
from benchmarks.quality.models.pairs import Pairs, Sides
from recsys.metrics.pointwise import rmse

BIAS_PENALTIES = (1.0, 5.0, 10.0, 20.0)
TREE_PENALTY = 5.0
NUM_FOLDS = 5
"""Of the training ratings, so that a tree's training row never sees a bias that its own rating moved."""
TRIALS = 3

Predict = Callable[[Pairs], np.ndarray]
"""Rows [N] -> ratings [N]."""


def rated(pairs: Pairs) -> Pairs:
    """Select the pairs that have a rating."""
    return pairs.take(~np.isnan(pairs.labels["rating"]))


def mean_rating(parts: Parts) -> tuple[Predict, str]:
    """Predict the mean of the training ratings."""
    value = float(rated(parts.train).labels["rating"].mean(dtype=np.float64))
    return lambda pairs: np.full(pairs.size, value), ""


def biases(parts: Parts) -> tuple[Predict, str]:
    """Predict by users' and books' biases; their penalty is chosen on validation."""
    train, validation, shape = rated(parts.train), rated(parts.validation), parts.sides.shape
    fitted = {p: fit_biases(train, "rating", p, shape) for p in BIAS_PENALTIES}
    tried = {p: rmse(validation.labels["rating"], b.predict(validation)) for p, b in fitted.items()}
    penalty = min(tried, key=lambda p: tried[p])
    return fitted[penalty].predict, f"penalty {penalty:g}"


def trees(parts: Parts) -> tuple[Predict, str]:
    """Fit LightGBM; settings from the frozen space and the number of trees are chosen on validation.

    Raises: ConfigError when LightGBM is not installed.
    """
    train, validation = rated(parts.train), rated(parts.validation)
    fold = np.random.default_rng(0).integers(NUM_FOLDS, size=train.size)
    crossed = np.empty(train.size)
    for one in range(NUM_FOLDS):
        others, mine = train.take(fold != one), train.take(fold == one)
        crossed[fold == one] = fit_biases(others, "rating", TREE_PENALTY, parts.sides.shape).predict(mine)
    columns = parts.sides.user_ids.shape[1] + parts.sides.item_ids.shape[1] - 2

    of_all = fit_biases(train, "rating", TREE_PENALTY, parts.sides.shape)

    def features(pairs: Pairs) -> np.ndarray:
        return tree_features(parts.sides, parts.train, pairs, of_all.predict(pairs))

    trained = tree_features(parts.sides, parts.train, train, crossed, among_known=True)
    found = tuned_trees(
        TreeRows(features=trained, label=train.labels["rating"]),
        TreeRows(features=features(validation), label=validation.labels["rating"]),
        binary=False,
        categories=range(columns),
        trials=TRIALS,
    )
    return lambda pairs: found.predict(features(pairs)), f"{TRIALS} trials, {found.count} trees"


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
