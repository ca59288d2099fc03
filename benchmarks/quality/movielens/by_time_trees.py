"""LightGBM on what was known of user and movie before a rating: means, counts, columns; a model a head."""

import numpy as np
import polars as pl

from benchmarks.quality.baselines.trees import TreeRows, grown_again, tuned_trees
from benchmarks.quality.models.pairs import Pairs, joined
from benchmarks.quality.movielens.timed_reader import TimedRatings

LIGHTGBM = "lightgbm"
HEADS = {"rating": False, "liked": True}
"""Head -> whether it is binary."""
TRIALS = 5
SHRINKAGE = 5.0


def fit_trees(
    data: TimedRatings, parts: tuple[Pairs, Pairs, Pairs]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]:
    """Give validation and test predictions per head, and a note; settings and sizes chosen on validation."""
    train, validation, test = parts
    before = joined([train, validation])
    known, whole = past_of_each(data, train), past_of_each(data, before)
    valid_features, test_features = past_of(data, validation, train), past_of(data, test, before)
    categories = list(range(4, known.shape[1]))
    found: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
    counts = []
    for head, binary in HEADS.items():
        rows = TreeRows(features=known, label=train.labels[head])
        chosen = tuned_trees(
            rows,
            TreeRows(features=valid_features, label=validation.labels[head]),
            binary=binary,
            categories=categories,
            trials=TRIALS,
        )
        found[0][head] = chosen.predict(valid_features)
        rows = TreeRows(features=whole, label=before.labels[head])
        found[1][head] = grown_again(chosen, rows, binary=binary, categories=categories).predict(
            test_features
        )
        counts.append(chosen.count)
    return found[0], found[1], f"{TRIALS} trials a head, {counts} trees"


def past_of_each(data: TimedRatings, rows: Pairs) -> np.ndarray:
    """Give each row [N] what the rows before it say of its user and movie: float32 [N, F]."""
    stars = pl.Series("stars", rows.labels["rating"].astype(np.float64))
    frame = pl.DataFrame({"user": rows.user, "item": rows.item}).with_columns(stars - stars.mean())
    past = frame.select(
        expression
        for key in ("user", "item")
        for expression in (
            (pl.col("stars").cum_sum().over(key) - pl.col("stars")).alias(f"{key}_sum"),
            (pl.col("stars").cum_count().over(key) - 1).alias(f"{key}_count"),
        )
    )
    return _features(data, rows, past.to_numpy())


def past_of(data: TimedRatings, rows: Pairs, before: Pairs) -> np.ndarray:
    """Give rows what all of some earlier rows say of their users and movies: float32 [N, F]."""
    centred = before.labels["rating"].astype(np.float64)
    centred -= centred.mean()
    columns = []
    for own, earlier, num in (
        (rows.user, before.user, data.num_users),
        (rows.item, before.item, data.num_items),
    ):
        columns += [np.bincount(earlier, centred, num)[own], np.bincount(earlier, minlength=num)[own]]
    return _features(data, rows, np.stack(columns, axis=1))


def _features(data: TimedRatings, rows: Pairs, past: np.ndarray) -> np.ndarray:
    """Put shrunk means and counts before the columns of user and movie without their ids."""
    total, count = past[:, ::2], past[:, 1::2]
    columns = (data.sides.user_ids[rows.user, 1:], data.sides.item_ids[rows.item, 1:])
    return np.concatenate([total / (count + SHRINKAGE), count, *columns], axis=1).astype(np.float32)
