"""MovieLens-1M, leave one out: HR@10 and NDCG@10 of each user's last movie among the 99 published negatives.

One model with two heads: `interaction`, by which lists are ordered, trained beside drawn negatives, and
`rating`, trained where there are stars. Sides start from a softmax over the catalogue; users are known by the
bag of their other movies. Settings and epochs are chosen on one more movie of each user with negatives of our
own. A sampled metric: compare it with figures of the same protocol only.

Shapes: U users, C candidates of a list.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.quality.baselines.item_rankers import BASELINES, best_ranker
from benchmarks.quality.catalogue_lists import positives
from benchmarks.quality.models.bags import BagSetting
from benchmarks.quality.models.catalogue_softmax import SoftmaxSetting, Start, softmax_scores, softmax_start
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pair_data import Pairs
from benchmarks.quality.models.pair_model import PairModel, PairSetting
from benchmarks.quality.quality_set import Measure, Outputs, QualitySet, Row, Run, baseline
from benchmarks.quality.readers.leave_one_out_reader import LeaveOneOut, gains, hits, read_leave_one_out
from benchmarks.quality.sets.movielens_ranking import (
    SOFTMAX_ONLY,
    candidate_pairs,
    ranking_setting,
    train_ranking,
)
from recsys.model.trunks import TRUNKS

PUBLISHED = {
    f"{name} (published)": {"interaction": {"hr@10": value}}
    for name, value in (
        ("ncf", 0.7278),
        ("dmf", 0.7197),
        ("einmf", 0.7781),
        ("bpr_mf", 0.4804),
        ("item_knn", 0.3371),
    )
}
BUDGET = Budget(epochs=4, learning_rate=1e-3, sparse_learning_rate=3e-4, weight_decay=1e-4)
"""Slow: both heads start near where they end."""
SOFTMAX = SoftmaxSetting(epochs=40)
BAGS = BagSetting(users=128, hidden=0.2)
DIM = 128
METRICS = {"hr@10": hits, "ndcg@10": gains}
"""Scores of lists [U, C] -> users' own values [U]."""


def open_leave_one_out(folder: Path, scratch: Path) -> QualitySet:
    """Read the ratings and the published lists; every trunk starts from its seed's softmax."""
    del scratch
    data = read_leave_one_out(folder)
    start = cache(lambda seed: softmax_start(data.train, data.sides.shape, DIM, SOFTMAX, seed))
    order = [Measure(head="interaction", metric=metric, output=metric) for metric in METRICS]
    users = np.arange(len(data.test))

    def stars(label: np.ndarray) -> Measure:
        return Measure(head="rating", metric="rmse", output="rating", pooled="rmse", label=label, user=users)

    return QualitySet(
        name="ml-1m-loo",
        protocol="sampled metric: the last rating of each user among the 99 published negatives; validation: "
        "one more rating of each user, drawn at random, among 99 drawn negatives",
        interval="95 %, bootstrap of the users, all seeds on each draw; differences draw seeds too",
        budget=f"one setting for all trunks, found by hand on validation; {BUDGET.epochs} epochs at most; "
        "baselines are refitted with the validation ratings, ours are not",
        rows={
            **{name: Row(partial(train_trunk, data, start, name)) for name in TRUNKS},
            SOFTMAX_ONLY: Row(lambda seed: score_start(data, start(seed)), ours=False),
            **{name: baseline(partial(rank, data, name)) for name in BASELINES},
        },
        validation=[*order, stars(data.held.labels["rating"])],
        test=[*order, stars(data.test_stars)],
        published=PUBLISHED,
        facts={"users": len(data.test), "train_rows": data.train.size},
    )


def train_trunk(data: LeaveOneOut, start: Callable[[int], Start], trunk: str, seed: int) -> Run:
    """Train both heads; the epoch has the highest NDCG@10 on validation."""

    def loss(model: PairModel) -> float:
        return -float(_outputs(model, data.validation)["ndcg@10"].mean())

    model, epoch = train_ranking(data.sides, data.train, trunk, setting(), start(seed), seed, loss)
    validation, test = (_outputs(model, lists) for lists in (data.validation, data.test))
    return Run(validation=validation, test=test, note=f"epoch {epoch}")


def setting() -> PairSetting:
    """Give how every trunk is trained."""
    return ranking_setting(BUDGET, DIM, BAGS)


def _outputs(model: PairModel, lists: np.ndarray) -> Outputs:
    """Measure lists [U, C] and predict the stars of their first items [U]."""
    num, width = lists.shape
    found = model.predict(candidate_pairs(np.repeat(np.arange(num), width), lists.ravel()))
    stars = found["rating"].reshape(num, width)[:, 0]
    return {**_measured(found["interaction"].reshape(num, width)), "rating": stars}


def _measured(scores: np.ndarray) -> dict[str, np.ndarray]:
    return {metric: of(scores) for metric, of in METRICS.items()}


def score_start(data: LeaveOneOut, start: Start) -> Run:
    """Order the lists by the softmax alone."""
    scores = softmax_scores(start, data.train, data.sides.shape)
    return Run(validation=_ordered(scores, data.validation), test=_ordered(scores, data.test))


def rank(data: LeaveOneOut, name: str) -> Run:
    """Choose a baseline's setting by NDCG@10 on validation and refit it with the validation ratings."""

    def dense(pairs: Pairs) -> dict[str, np.ndarray]:
        return {"": positives(pairs, data.sides.shape).toarray()}

    def worth(scores: np.ndarray) -> float:
        return float(_ordered(scores, data.validation)["ndcg@10"].mean())

    ranked = best_ranker(name, dense(data.train), worth, dense(data.but_test))
    known, test = _ordered(ranked.scores, data.validation), _ordered(ranked.again, data.test)
    return Run(validation=known, test=test, note=ranked.note)


def _ordered(scores: np.ndarray, lists: np.ndarray) -> dict[str, np.ndarray]:
    """Measure lists [U, C] by scores of the catalogue [U, I]."""
    return _measured(np.take_along_axis(scores, lists, axis=1))
