"""MovieLens-100K, the whole catalogue: nDCG@10 and recall@10 by the protocol of the recommenders team.

A random quarter of each user's ratings is the test, every rating counts as relevant, movies of the training
part are not listed. A softmax over the catalogue retrieves candidates from the bag of a user's movies and one
model with the heads `interaction` and `rating` orders them. Epochs and settings are chosen on a tenth of the
training part; what is scored is trained on the whole of it. Each seed draws its own split.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recsys.config import TrunkConfig
from recsys.metrics.ranking import match, ndcg_at_k, recall_at_k
from recsys.model.trunks import TRUNKS
from training.quality.baselines.biases import fit_biases
from training.quality.baselines.lists import BASELINES, have_matrix
from training.quality.models.bags import BagSetting
from training.quality.models.catalogue_softmax import SoftmaxSetting, softmax_scores, softmax_start
from training.quality.models.fitting import Budget
from training.quality.models.pairs import PairModel, Pairs, PairSetting, Sides, joined, train_pairs
from training.quality.movielens.leave_one_out import (
    BIAS_PENALTY,
    NUM_NEGATIVES,
    SHAPE,
    SOFTMAX_ONLY,
    TASKS,
    begin,
    unknown,
)
from training.quality.movielens.timed_reader import read_timed
from training.quality.report import ModelRow, QualityReport, over_seeds, wanted_rows

K = 10
CANDIDATES = 100
TEST_SHARE = 0.25
VALIDATION_SHARE = 0.1
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One seed's parts."""

    sides: Sides
    train: Pairs
    validation: Pairs
    test: Pairs

    @property
    def before(self) -> Pairs:
        """Give all that is known before the test."""
        return joined([self.train, self.validation])


Figures = tuple[dict[str, float], dict[str, float], str]
"""Metric -> value on validation and on test, and a note."""


def measure_top_10(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Measure every row on each seed's split."""
    wanted = wanted_rows([*TRUNKS, SOFTMAX_ONLY, *BASELINES], asked)
    found: dict[str, list[Figures]] = {name: [] for name in wanted}
    for seed in range(seeds):
        split = read_split(folder, seed)
        for name, runs in found.items():
            score = _score_baseline if name in BASELINES else _score_ours
            runs.append(score(name, split, seed))
            news(f"{name}, seed {seed}: {runs[-1][2]}, validation nDCG@10 {runs[-1][0]['ndcg@10']:.4f}")
    return QualityReport(
        name="ml-100k-top10",
        protocol="a random quarter of each user's ratings is the test, whole catalogue but for the training "
        "movies, every rating is relevant; a tenth of the rest chooses and is then learnt from",
        interval="95 %, Student's over seeds: each draws its own split",
        budget=f"one setting, found by hand on validation; at most {BUDGET.epochs} epochs",
        rows=tuple(_row(name, runs) for name, runs in found.items()),
        published=PUBLISHED,
        facts={"users": split.sides.shape[0], "items": split.sides.shape[1], "test_rows": split.test.size},
    )


def read_split(folder: Path, seed: int) -> Split:
    """Read the set and draw a split."""
    data = read_timed(folder)
    num_users, num_items = data.num_users, data.num_items
    sides = Sides(
        user_ids=data.sides.user_ids[:num_users],
        item_ids=data.sides.item_ids[:num_items],
        num_ids=data.sides.num_ids,
    )
    rng = np.random.default_rng(seed)
    out = share_of_each(data.pairs.user, TEST_SHARE, rng)
    before = data.pairs.take(~out)
    chosen = share_of_each(before.user, VALIDATION_SHARE, rng)
    return Split(
        sides=sides, train=before.take(~chosen), validation=before.take(chosen), test=data.pairs.take(out)
    )


def share_of_each(user: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a share of each user's rows, rounded: bool [N]."""
    order = rng.permutation(user.size)
    order = order[np.argsort(user[order], kind="stable")]
    sizes = np.bincount(user)
    place = np.arange(user.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    drawn = np.zeros(user.size, bool)
    drawn[order] = place < np.round(share * np.repeat(sizes, sizes))
    return drawn


def list_metrics(scores: np.ndarray, known: Pairs, relevant: Pairs) -> dict[str, float]:
    """Give means over users with relevant items; args: scores [U, I], known: pairs that are not listed."""
    scores = scores.copy()
    scores[known.user, known.item] = -np.inf
    top = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    order = np.argsort(relevant.user, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(relevant.user, minlength=len(scores)))])
    found = match(top, offsets, relevant.item[order])
    return {
        f"ndcg@{K}": float(np.nanmean(ndcg_at_k(found, K))),
        f"recall@{K}": float(np.nanmean(recall_at_k(found, K))),
    }


def setting() -> PairSetting:
    """Give how every trunk is trained."""
    return PairSetting(
        tasks=TASKS,
        budget=BUDGET,
        dim=DIM,
        batch_size=0,
        weigh_product=True,
        sampled="interaction",
        negatives=NUM_NEGATIVES,
        bags=BAGS,
    )


def _score_ours(name: str, split: Split, seed: int) -> Figures:
    chosen, epoch = _learn(name, split.sides, split.train, seed, split.validation)
    final, _ = _learn(name, split.sides, split.before, seed, None, epoch)
    return (
        list_metrics(chosen, split.train, split.validation),
        list_metrics(final, split.before, split.test),
        f"{epoch} epochs",
    )


def _learn(
    name: str,
    sides: Sides,
    train: Pairs,
    seed: int,
    validation: Pairs | None,
    stop_after: int | None = None,
) -> tuple[np.ndarray, int]:
    """Give scores [U, I], -inf for what was not retrieved, and the epoch kept; 0 of the softmax alone."""
    start = softmax_start(train, sides.shape, DIM, SOFTMAX, seed)
    retrieved = softmax_scores(start, train, sides.shape)
    if name == SOFTMAX_ONLY:
        return retrieved, 0
    candidates = _candidates(retrieved, train)
    biases = fit_biases(train, "rating", BIAS_PENALTY, sides.shape)
    labels = {**unknown(train.size), "rating": train.labels["rating"]}
    labels["interaction"] = np.ones(train.size, np.float32)

    def scores(model: PairModel) -> np.ndarray:
        found = np.full(sides.shape, -np.inf, np.float32)
        found[candidates.user, candidates.item] = model.predict(candidates)["interaction"]
        return found

    def loss(model: PairModel) -> float:
        assert validation is not None
        return -list_metrics(scores(model), train, validation)[f"ndcg@{K}"]

    model, epoch = train_pairs(
        sides,
        replace(train, labels=labels),
        _trunk(name),
        setting(),
        seed,
        None if validation is None else loss,
        start=lambda m: begin(m, start, biases),
        stop_after=stop_after,
    )
    return scores(model), epoch


def _trunk(name: str) -> TrunkConfig:
    return setting().trunks(SHAPE)[name]


def _candidates(scores: np.ndarray, known: Pairs) -> Pairs:
    """Give each user's best items [U * CANDIDATES] besides the known ones."""
    scores = scores.copy()
    scores[known.user, known.item] = -np.inf
    width = min(CANDIDATES, scores.shape[1] - int(np.bincount(known.user).max()))
    item = np.argpartition(-scores, width - 1, axis=1)[:, :width].ravel()
    return Pairs(user=np.repeat(np.arange(len(scores)), width), item=item, labels=unknown(item.size))


def _score_baseline(name: str, split: Split, seed: int) -> Figures:
    """Choose a baseline's setting by validation; it draws nothing of its own."""
    del seed
    matrix, whole = (have_matrix(p.user, p.item, split.sides.shape) for p in (split.train, split.before))
    tried = {
        note: list_metrics(score(matrix), split.train, split.validation)
        for note, score in BASELINES[name].items()
    }
    note = max(tried, key=lambda n: tried[n][f"ndcg@{K}"])
    return tried[note], list_metrics(BASELINES[name][note](whole), split.before, split.test), note


def _row(name: str, runs: Sequence[Figures]) -> ModelRow:
    return ModelRow(
        name=name,
        heads={
            "interaction": {
                metric: over_seeds([r[1][metric] for r in runs], [r[0][metric] for r in runs])
                for metric in (f"ndcg@{K}", f"recall@{K}")
            }
        },
        seeds=len(runs),
        note=", ".join(dict.fromkeys(r[2] for r in runs if r[2])),
        ours=name in TRUNKS,
    )
