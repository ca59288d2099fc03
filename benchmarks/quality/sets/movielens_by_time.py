"""MovieLens by time: train on the earliest 80 % of all ratings, score the last 20 %.

Most users of the test part are new: `warm` figures are over those with earlier ratings. One model with the
heads `rating` and `liked`; epochs and settings are chosen on the last tenth of the training part, and the row
that is scored is trained on the whole of it. LightGBM reads what was known of user and movie before a rating:
means, counts, columns; a model a head.
"""

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.quality.baselines.biases import Biases, best_biases, fit_biases, rating_error
from benchmarks.quality.baselines.tuned_trees import trees_of_heads
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pair_data import Pairs, Split
from benchmarks.quality.models.pair_model import PairModel, PairSetting, train_pairs
from benchmarks.quality.quality_set import CHOSEN, QualitySet, Row, Run, baseline
from benchmarks.quality.readers.timed_reader import TimedRatings, read_timed
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import auc, rmse
from recsys.model.trunks import TRUNKS
from recsys.tasks import TaskSpec

TASKS = (
    TaskSpec(name="rating", feedback="rating", head="regression", window="1d", low=0.5),
    TaskSpec(name="liked", feedback="rating", head="binary", window="1d"),
)
METRICS = {"rating": "rmse", "liked": "auc"}
INSIDE = {"rating": "list_concordance", "liked": "list_auc"}
"""Among each user's own ratings of the test: what `METRICS` add to it is who rates high, and when."""
SHAPE = TrunkConfig(name="mmoe", num_experts=2, task_experts=1, hidden=(32, 16))
BUDGET = Budget(epochs=10, learning_rate=5e-4, sparse_learning_rate=0.003, weight_decay=0.1)
"""Slow: both heads start from the bias model, and these sets are soon overfitted."""
DIM = 16
BATCH_SIZE = 1024
STRANGERS = 0.2
"""Share of the training rows whose user, and whose movie, is shown without its id."""
PENALTY = 10.0
LIKED_SLOPE = 2.0
"""Logits of `liked` per star of the biases, to start with."""
PENALTIES = (2.0, 5.0, 10.0, 20.0)
TRIALS = 5
SHRINKAGE = 5.0
"""Average ratings that a tree's means of user and movie are held back by."""


def open_by_time(name: str, folder: Path, scratch: Path) -> QualitySet:
    """Read a set of MovieLens and cut it by time."""
    del scratch
    data = read_timed(folder)
    split = data.split()
    warm = np.isin(split.test.user, split.before.user)
    trunks = setting().trunks(SHAPE)
    return QualitySet(
        name=name,
        protocol="by time: the last 20 % of all ratings are the test; validation is the last tenth of the "
        "rest, which the scored models are trained on too; warm: users with ratings before the test",
        interval="95 %, bootstrap of the test users (warm figures: the warm ones), all seeds on each draw; "
        "differences draw seeds too",
        budget=f"one setting for all trunks, found by hand on validation; at most {BUDGET.epochs} epochs",
        rows={
            **{n: Row(partial(train_by_time, data, split, trunk)) for n, trunk in trunks.items()},
            "bias_model": baseline(partial(bias_model, data, split)),
            "item_mean": baseline(partial(bias_model, data, split, of_users=False)),
            "lightgbm": baseline(partial(fit_trees, data, split)),
        },
        validation=split.validation.measures(METRICS),
        test=[
            one
            for everyone in (*split.test.measures_inside(INSIDE), *split.test.measures(METRICS))
            for one in (everyone, everyone.among(warm, "_warm"))
        ],
        questions=tuple((CHOSEN, trunk) for trunk in TRUNKS),
        facts={
            "test_rows": split.test.size,
            "test_users": np.unique(split.test.user).size,
            "warm_test_rows": int(warm.sum()),
            "warm_test_users": np.unique(split.test.user[warm]).size,
        },
    )


open_ml_100k = partial(open_by_time, "ml-100k")
open_ml_latest_small = partial(open_by_time, "ml-latest-small")


def train_by_time(data: TimedRatings, split: Split, trunk: TrunkConfig, seed: int) -> Run:
    """Choose the number of epochs on validation, then train for as many on all but the test."""
    known = data.seen(split.validation, split.train)
    chosen, epoch = _train(data, split.train, trunk, seed, known)
    final, _ = _train(data, split.before, trunk, seed, None, epoch)
    test = data.seen(split.test, split.before)
    return Run(validation=chosen.predict(known), test=final.predict(test), note=f"{epoch} epochs")


def _train(
    data: TimedRatings,
    rows: Pairs,
    trunk: TrunkConfig,
    seed: int,
    known: Pairs | None,
    stop_after: int | None = None,
) -> tuple[PairModel, int]:
    biases = fit_biases(rows, "rating", PENALTY, data.shape)

    def begin(model: PairModel) -> None:
        biases.put(model, "rating")
        biases.put(model, "liked", LIKED_SLOPE)

    return train_pairs(
        data.sides,
        data.with_strangers(rows, STRANGERS, seed),
        trunk,
        setting(),
        seed,
        None if known is None else partial(_loss, known),
        start=begin,
        stop_after=stop_after,
    )


def _loss(rows: Pairs, model: PairModel) -> float:
    """Weigh both heads alike: an error of the stars' unit and a missing AUC."""
    found = model.predict(rows)
    return rmse(rows.labels["rating"], found["rating"]) - auc(rows.labels["liked"], found["liked"])


def setting() -> PairSetting:
    """Give how every trunk is trained."""
    return PairSetting(
        tasks=TASKS,
        budget=BUDGET,
        dim=DIM,
        batch_size=BATCH_SIZE,
        dropout=0.2,
        row_dropout=0.3,
        weigh_product=True,
        start_scale=1.0,
    )


def bias_model(data: TimedRatings, split: Split, *, of_users: bool = True) -> Run:
    """Fit with the penalty that validation likes best, then on all but the test; stars order `liked` too."""
    error = rating_error(split.validation)
    penalty, chosen = best_biases(split.train, "rating", PENALTIES, data.shape, error, of_users=of_users)
    final = fit_biases(split.before, "rating", penalty, data.shape, of_users=of_users)

    def both(biases: Biases, rows: Pairs) -> dict[str, np.ndarray]:
        return dict.fromkeys(METRICS, biases.predict(rows))

    return Run(
        validation=both(chosen, split.validation), test=both(final, split.test), note=f"penalty {penalty:g}"
    )


def fit_trees(data: TimedRatings, split: Split) -> Run:
    """Fit LightGBM per head; settings and sizes are chosen on validation.

    Raises: ConfigError when LightGBM is not installed.
    """
    features = {
        "train": past_of_each(data, split.train),
        "validation": past_of(data, split.validation, split.train),
        "before": past_of_each(data, split.before),
        "test": past_of(data, split.test, split.before),
    }
    labels = {part: getattr(split, part).labels for part in ("train", "validation", "before")}
    categories = range(4, features["train"].shape[1])
    return trees_of_heads({"rating": False, "liked": True}, features, labels, categories, TRIALS)


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
