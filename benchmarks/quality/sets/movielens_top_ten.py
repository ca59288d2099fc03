"""MovieLens-100K, the whole catalogue: nDCG@10 and recall@10 by the protocol of the recommenders team.

A random quarter of each user's ratings is the test, every rating counts as relevant, movies of the training
part are not listed. A softmax over the catalogue retrieves candidates from the bag of a user's movies and one
model with the heads `interaction` and `rating` orders them. Epochs and settings are chosen on a tenth of the
training part; what is scored is trained on the whole of it. Each seed draws its own split.

Shapes: U users, I items.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.quality.baselines.item_rankers import BASELINES, best_ranker
from benchmarks.quality.catalogue_lists import (
    Wanted,
    list_measures,
    list_outputs,
    mean_ndcg,
    positives,
    split_per_user,
    wanted,
)
from benchmarks.quality.models.bags import BagSetting
from benchmarks.quality.models.catalogue_softmax import SoftmaxSetting, softmax_scores, softmax_start
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.item_tables import NAME, TOGETHER, Together, choose_table, table_scorer
from benchmarks.quality.models.pair_data import Pairs, Sides, Split
from benchmarks.quality.models.pair_model import PairModel, PairSetting
from benchmarks.quality.quality_set import QualitySet, Row, Run
from benchmarks.quality.readers.timed_reader import TimedRatings, read_timed
from benchmarks.quality.sets.movielens_ranking import (
    SHAPE,
    SOFTMAX_ONLY,
    candidate_pairs,
    ranking_setting,
    train_ranking,
)
from recsys.model.trunks import TRUNKS

CANDIDATES = 100
SHARES = (0.25, 0.075)
"""Of the test and of validation: a tenth of what is left."""
PUBLISHED = {
    f"{name} (recommenders)": {"interaction": {"ndcg@10": gain, "recall@10": found}}
    for name, gain, found in (
        ("bivae", 0.475, 0.219),
        ("bpr", 0.442, 0.213),
        ("lightgcn", 0.420, 0.144),
        ("ncf", 0.396, 0.181),
        ("sar", 0.382, 0.176),
    )
}
BUDGET = Budget(epochs=3, learning_rate=5e-4, sparse_learning_rate=1e-3, weight_decay=1e-4)
BAGS = BagSetting(users=32, hidden=0.2)
SOFTMAX = SoftmaxSetting(epochs=40, users=64, dropout=0.6, penalty=0.01)
DIM = 64


def open_top_ten(folder: Path, scratch: Path) -> QualitySet:
    """Read the set; every row is measured on each seed's split."""
    del scratch
    data = read_timed(folder)
    split = cache(partial(split_of, data))
    # Kept for the row of all parts.
    trained, tables = cache(partial(trunk_scores, split, SHAPE.name)), cache(partial(table_scores, split))
    lists = [replace(m, repeats="runs") for m in list_measures(["interaction"])]
    return QualitySet(
        name="ml-100k-top10",
        protocol="a random quarter of each user's ratings is the test, whole catalogue but for the training "
        "movies, every rating is relevant; a tenth of the rest chooses and is then trained on",
        interval="95 %, Student's over seeds: each draws its own split; differences draw users and seeds",
        budget=f"one setting, found by hand on validation; at most {BUDGET.epochs} epochs",
        rows={
            **{name: Row(partial(train_trunk, split, name)) for name in TRUNKS},
            SHAPE.name: Row(lambda seed: run_of(split(seed), trained(seed))),
            NAME: Row(lambda seed: run_of(split(seed), tables(seed))),
            TOGETHER: Row(
                lambda seed: run_of(split(seed), together(split(seed), tables(seed), trained(seed)))
            ),
            SOFTMAX_ONLY: Row(partial(score_softmax, split), ours=False),
            **{name: Row(partial(rank, split, name), ours=False) for name in BASELINES},
        },
        validation=lists,
        test=lists,
        published=PUBLISHED,
        facts={"users": data.num_users, "items": data.num_items, "test_rows": split(0).test.size},
    )


SplitOf = Callable[[int], Split]
"""Seed -> its split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Scores [U, I]: of what was trained without validation, which chooses, and of what is tested."""

    known: np.ndarray
    final: np.ndarray
    note: str = ""


def split_of(data: TimedRatings, seed: int) -> Split:
    """Draw a seed's split."""
    train, validation, test = split_per_user(data.pairs, SHARES, seed)
    return Split(sides=data.known_sides, train=train, validation=validation, test=test)


def setting() -> PairSetting:
    """Give how every trunk is trained."""
    return ranking_setting(BUDGET, DIM, BAGS)


def train_trunk(splits: SplitOf, trunk: str, seed: int) -> Run:
    """Order what the softmax retrieves by a trunk's head."""
    return run_of(splits(seed), trunk_scores(splits, trunk, seed))


def trunk_scores(splits: SplitOf, trunk: str, seed: int) -> Scored:
    """Choose the epoch on validation; train again, for as many, on all but the test."""
    split = splits(seed)
    known = _known_lists(split)
    chosen, epoch = _train(split.sides, split.train, trunk, seed, known)
    final, _ = _train(split.sides, split.before, trunk, seed, None, epoch)
    return Scored(known=chosen, final=final, note=f"{epoch} epochs")


def _train(
    sides: Sides, train: Pairs, trunk: str, seed: int, known: Wanted | None, stop_after: int | None = None
) -> tuple[np.ndarray, int]:
    """Give scores [U, I], -inf for what was not retrieved, and the epoch kept."""
    softmax = softmax_start(train, sides.shape, DIM, SOFTMAX, seed)
    candidates = _candidates(softmax_scores(softmax, train, sides.shape), train)

    def scores(model: PairModel) -> np.ndarray:
        found = np.full(sides.shape, -np.inf, np.float32)
        found[candidates.user, candidates.item] = model.predict(candidates)["interaction"]
        return found

    def loss(model: PairModel) -> float:
        assert known is not None
        return -mean_ndcg(scores(model).__getitem__, known)

    own = None if known is None else loss
    model, epoch = train_ranking(sides, train, trunk, setting(), softmax, seed, own, stop_after)
    return scores(model), epoch


def _candidates(scores: np.ndarray, known: Pairs) -> Pairs:
    """Give each user's best items [U * CANDIDATES] besides the known ones."""
    scores = scores.copy()
    scores[known.user, known.item] = -np.inf
    width = min(CANDIDATES, scores.shape[1] - int(np.bincount(known.user).max()))
    item = np.argpartition(-scores, width - 1, axis=1)[:, :width].ravel()
    return candidate_pairs(np.repeat(np.arange(len(scores)), width), item)


def score_softmax(splits: SplitOf, seed: int) -> Run:
    """Order the catalogue by the softmax alone."""
    split = splits(seed)
    known, final = (
        softmax_scores(softmax_start(rows, split.sides.shape, DIM, SOFTMAX, seed), rows, split.sides.shape)
        for rows in (split.train, split.before)
    )
    return run_of(split, Scored(known=known, final=final))


def rank(splits: SplitOf, name: str, seed: int) -> Run:
    """Choose a baseline's setting by NDCG@10 on validation and fit it again on all but the test."""
    split = splits(seed)
    known = _known_lists(split)
    matrix, whole = (positives(p, split.sides.shape).toarray() for p in (split.train, split.before))
    ranked = best_ranker(name, {"": matrix}, lambda scores: mean_ndcg(scores.__getitem__, known), {"": whole})
    return run_of(split, Scored(known=ranked.scores, final=ranked.again, note=ranked.note))


def table_scores(splits: SplitOf, seed: int) -> Scored:
    """Choose the item-item table on validation and fit it again on all but the test."""
    split = splits(seed)
    matrix, whole = (positives(p, split.sides.shape) for p in (split.train, split.before))
    setting, table = choose_table(matrix, [_known_lists(split)])
    users = np.arange(split.sides.shape[0])
    known, final = table_scorer(table, matrix)(users), table_scorer(setting.fit(whole), whole)(users)
    return Scored(known=known, final=final, note=str(setting))


def together(split: Split, table: Scored, heads: Scored) -> Scored:
    """Add what the head predicts of what the softmax retrieves; its weight is chosen on validation."""
    parts = [(table.known, _of_all(heads.known)), (table.final, _of_all(heads.final))]
    own, predicted = parts[0]
    both = Together.choose(own.__getitem__, predicted.__getitem__, [_known_lists(split)])
    users = np.arange(split.sides.shape[0])
    known, final = (both.scorer(one.__getitem__, other.__getitem__)(users) for one, other in parts)
    return Scored(known=known, final=final, note=f"{both} ({table.note})")


def _of_all(scores: np.ndarray) -> np.ndarray:
    """Give what was not retrieved a prediction of 0."""
    return np.where(np.isneginf(scores), np.float32(0), scores)


def _known_lists(split: Split) -> Wanted:
    """Give what is to be found in validation, by what was trained without it."""
    return wanted(split.validation, split.train, split.sides.shape, split.sides.shape[0])


def run_of(split: Split, scored: Scored) -> Run:
    """Measure scores on validation and on the test."""
    test = wanted(split.test, split.before, split.sides.shape, split.sides.shape[0])
    return Run(
        validation=list_outputs("interaction", scored.known.__getitem__, _known_lists(split)),
        test=list_outputs("interaction", scored.final.__getitem__, test),
        note=scored.note,
    )
