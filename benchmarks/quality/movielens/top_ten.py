"""MovieLens-100K, the whole catalogue: nDCG@10 and recall@10 by the protocol of the recommenders team.

A random quarter of each user's ratings is the test, every rating counts as relevant, movies of the training
part are not listed. A softmax over the catalogue retrieves candidates from the bag of a user's movies and one
model with the heads `interaction` and `rating` orders them. Epochs and settings are chosen on a tenth of the
training part; what is scored is trained on the whole of it. Each seed draws its own split.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.quality.baselines.biases import fit_biases
from benchmarks.quality.baselines.lists import BASELINES, best_variant
from benchmarks.quality.full_lists import (
    PLACES,
    Wanted,
    kept_lists,
    list_metrics,
    positives,
    split_per_user,
    wanted,
)
from benchmarks.quality.models.bags import BagSetting
from benchmarks.quality.models.catalogue_softmax import SoftmaxSetting, softmax_scores, softmax_start
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pairs import PairModel, Pairs, PairSetting, Sides, joined, train_pairs
from benchmarks.quality.movielens.ranking import (
    BIAS_PENALTY,
    DRAWN_PER_ROW,
    SHAPE,
    SOFTMAX_ONLY,
    TASKS,
    begin,
    unknown,
)
from benchmarks.quality.movielens.timed_reader import read_timed
from benchmarks.quality.report import ModelRow, QualityReport, against_baselines, over_seeds, wanted_rows
from recsys.config import TrunkConfig
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

    @property
    def known_list(self) -> Wanted:
        """Give what is to be found in validation, by what was learnt without it."""
        return wanted(self.validation, self.train, self.sides.shape, self.sides.shape[0])

    @property
    def test_list(self) -> Wanted:
        """Give what is to be found in the test."""
        return wanted(self.test, self.before, self.sides.shape, self.sides.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run's metrics of the lists, users' values [U], and a note."""

    validation: Mapping[str, np.ndarray]
    test: Mapping[str, np.ndarray]
    note: str


def measure_top_10(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Measure every row on each seed's split."""
    wanted = wanted_rows([*TRUNKS, SOFTMAX_ONLY, *BASELINES], asked)
    found: dict[str, list[Run]] = {name: [] for name in wanted}
    for seed in range(seeds):
        split = read_split(folder, seed)
        for name, runs in found.items():
            score = _score_baseline if name in BASELINES else _score_ours
            runs.append(score(name, split, seed))
            gain = runs[-1].validation["ndcg"].mean()
            news(f"{name}, seed {seed}: {runs[-1].note}, validation nDCG@10 {gain:.4f}")
    rows = tuple(_row(name, runs) for name, runs in found.items())
    kept = kept_lists("interaction", {name: [run.test for run in runs] for name, runs in found.items()})
    return QualityReport(
        name="ml-100k-top10",
        protocol="a random quarter of each user's ratings is the test, whole catalogue but for the training "
        "movies, every rating is relevant; a tenth of the rest chooses and is then learnt from",
        interval="95 %, Student's over seeds: each draws its own split; differences draw users and seeds",
        budget=f"one setting, found by hand on validation; at most {BUDGET.epochs} epochs",
        rows=rows,
        differences=tuple(against_baselines(rows, kept)),
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
    train, validation, test = split_per_user(data.pairs, SHARES, seed)
    return Split(sides=sides, train=train, validation=validation, test=test)


def setting() -> PairSetting:
    """Give how every trunk is trained."""
    return PairSetting(
        tasks=TASKS,
        budget=BUDGET,
        dim=DIM,
        batch_size=0,
        weigh_product=True,
        sampled="interaction",
        negatives=DRAWN_PER_ROW,
        bags=BAGS,
    )


def _score_ours(name: str, split: Split, seed: int) -> Run:
    known = split.known_list
    chosen, epoch = _learn(name, split.sides, split.train, seed, known)
    final, _ = _learn(name, split.sides, split.before, seed, None, epoch)
    return _run(chosen, known, final, split, f"{epoch} epochs" if epoch else "")


def _run(chosen: np.ndarray, known: Wanted, final: np.ndarray, split: Split, note: str) -> Run:
    """Measure scores [U, I] learnt without validation, and those to be tested."""
    return Run(
        validation=list_metrics(chosen.__getitem__, known),
        test=list_metrics(final.__getitem__, split.test_list),
        note=note,
    )


def _learn(
    name: str,
    sides: Sides,
    train: Pairs,
    seed: int,
    known: Wanted | None,
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
        assert known is not None
        return -float(list_metrics(scores(model).__getitem__, known)["ndcg"].mean())

    model, epoch = train_pairs(
        sides,
        replace(train, labels=labels),
        _trunk(name),
        setting(),
        seed,
        None if known is None else loss,
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


def _score_baseline(name: str, split: Split, seed: int) -> Run:
    """Choose a baseline's setting by validation; it draws nothing of its own."""
    del seed
    known = split.known_list
    matrix, whole = (positives(p, split.sides.shape).toarray() for p in (split.train, split.before))
    note, chosen = best_variant(
        name, matrix, lambda scores: float(list_metrics(scores.__getitem__, known)["ndcg"].mean())
    )
    return _run(chosen, known, BASELINES[name][note](whole), split, note)


def _row(name: str, runs: Sequence[Run]) -> ModelRow:
    return ModelRow(
        name=name,
        heads={
            "interaction": {
                f"{metric}@{PLACES}": over_seeds(
                    [float(run.test[metric].mean()) for run in runs],
                    [float(run.validation[metric].mean()) for run in runs],
                )
                for metric in ("ndcg", "recall")
            }
        },
        seeds=len(runs),
        note=", ".join(dict.fromkeys(r.note for r in runs if r.note)),
        ours=name in TRUNKS,
    )
