"""MovieLens-1M, leave one out: HR@10 and NDCG@10 of each user's last movie among the 99 published negatives.

One model with two heads: `interaction`, by which lists are ordered, learnt beside drawn negatives, and
`rating`, learnt where there are stars. Sides start from a softmax over the catalogue; users are known by the
bag of their other movies. Settings and epochs are chosen on one more movie of each user with negatives of our
own. A sampled metric: compare it with figures of the same protocol only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.quality.baselines.biases import fit_biases
from benchmarks.quality.baselines.lists import BASELINES, best_variant
from benchmarks.quality.full_lists import positives, user_figure
from benchmarks.quality.models.bags import BagSetting
from benchmarks.quality.models.catalogue_softmax import SoftmaxSetting, softmax_scores, softmax_start
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pairs import PairModel, Pairs, PairSetting, train_pairs
from benchmarks.quality.movielens.leave_one_out_reader import LeaveOneOut, gains, hits, read_leave_one_out
from benchmarks.quality.movielens.ranking import (
    BIAS_PENALTY,
    DRAWN_PER_ROW,
    SHAPE,
    SOFTMAX_ONLY,
    TASKS,
    begin,
    unknown,
)
from benchmarks.quality.report import (
    Figure,
    Kept,
    ModelRow,
    QualityReport,
    against_baselines,
    over_rows,
    wanted_rows,
)
from recsys.metrics.pointwise import rmse
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
ROW_DROPOUT = 0.2
METRICS = {"hr@10": hits, "ndcg@10": gains}
"""Scores of lists [U, C] -> users' own values [U]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """One run's scores of lists [U, C], and stars of their first items [U] where the model tells any."""

    validation: np.ndarray
    test: np.ndarray
    known_stars: np.ndarray | None = None
    stars: np.ndarray | None = None


def measure_leave_one_out(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Train every trunk from each seed's start, and the baselines; score the published lists."""
    wanted = wanted_rows([*TRUNKS, SOFTMAX_ONLY, *BASELINES], asked)
    data = read_leave_one_out(folder)
    runs: dict[str, list[Lists]] = {}
    for seed in range(seeds if {*TRUNKS, SOFTMAX_ONLY} & {*wanted} else 0):
        for name, lists, epoch in _seed(data, seed, wanted):
            runs.setdefault(name, []).append(lists)
            figures = (
                f"HR@10 {hits(lists.validation).mean():.4f}, NDCG@10 {gains(lists.validation).mean():.4f}"
            )
            if lists.known_stars is not None:
                figures += f", RMSE {rmse(data.held.labels['rating'], lists.known_stars):.4f}"
            news(f"{name}, seed {seed}: epoch {epoch}, validation {figures}")
    notes = {name: "both heads" if name in TRUNKS else "the start" for name in runs}
    for name in (n for n in wanted if n in BASELINES):
        lists, notes[name] = _baseline(name, data)
        runs[name] = [lists]
        news(f"{name}: {notes[name]}, validation HR@10 {hits(lists.validation).mean():.4f}")
    rows = [_row(n, data, runs[n], notes[n], ours=n in TRUNKS) for n in wanted]
    return QualityReport(
        name="ml-1m-loo",
        protocol="sampled metric: the last rating of each user among the 99 published negatives; validation: "
        "one more rating of each user, drawn at random, among 99 drawn negatives",
        interval="95 %, bootstrap of the users, all seeds on each draw; differences draw seeds too",
        budget=f"one setting for all trunks, found by hand on validation; {BUDGET.epochs} epochs at most; "
        "baselines are refitted with the validation ratings, ours are not",
        rows=tuple(rows),
        differences=tuple(against_baselines(rows, _kept(runs))),
        published=PUBLISHED,
        facts={"users": len(data.test), "train_rows": data.train.size},
    )


def _seed(data: LeaveOneOut, seed: int, wanted: Sequence[str]) -> Iterator[tuple[str, Lists, int]]:
    """Give row, lists and epoch of one seed: the start's own, and every trunk's from that start."""
    shape = data.sides.shape
    start = softmax_start(data.train, shape, DIM, SOFTMAX, seed)
    if SOFTMAX_ONLY in wanted:
        scores = softmax_scores(start, data.train, shape)
        yield SOFTMAX_ONLY, Lists(validation=_of(scores, data.validation), test=_of(scores, data.test)), 0
    train = replace(data.train, labels={**unknown(data.train.size), "rating": data.train.labels["rating"]})
    train.labels["interaction"][:] = 1.0
    known = _candidates(data.validation)
    biases = fit_biases(data.train, "rating", BIAS_PENALTY, shape)
    for name, trunk in ((n, t) for n, t in setting().trunks(SHAPE).items() if n in wanted):

        def loss(model: PairModel) -> float:
            return -float(gains(_lists(model, known)[0]).mean())

        model, epoch = train_pairs(
            data.sides,
            train,
            trunk,
            setting(),
            seed,
            loss,
            start=lambda model: begin(model, start, biases),
        )
        validation, known_stars = _lists(model, known)
        test, stars = _lists(model, _candidates(data.test))
        yield name, Lists(validation=validation, test=test, known_stars=known_stars, stars=stars), epoch


def setting() -> PairSetting:
    """Give how every trunk is trained."""
    return PairSetting(
        tasks=TASKS,
        budget=BUDGET,
        dim=DIM,
        batch_size=0,
        row_dropout=ROW_DROPOUT,
        weigh_product=True,
        sampled="interaction",
        negatives=DRAWN_PER_ROW,
        bags=BAGS,
    )


def _lists(model: PairModel, candidates: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Give the scores [U, C] and the first items' stars [U]."""
    found = model.predict(candidates)
    num = model.sides.shape[0]
    return found["interaction"].reshape(num, -1), found["rating"].reshape(num, -1)[:, 0]


def _candidates(lists: np.ndarray) -> Pairs:
    num, width = lists.shape
    return Pairs(user=np.repeat(np.arange(num), width), item=lists.ravel(), labels=unknown(lists.size))


def _of(scores: np.ndarray, lists: np.ndarray) -> np.ndarray:
    return np.take_along_axis(scores, lists, axis=1)


def _baseline(name: str, data: LeaveOneOut) -> tuple[Lists, str]:
    """Choose a baseline's setting by NDCG@10 on validation and refit it with the validation ratings."""
    shape = data.sides.shape
    matrix = positives(data.train, shape).toarray()
    note, scores = best_variant(name, matrix, lambda found: gains(_of(found, data.validation)).mean())
    refitted = BASELINES[name][note](positives(data.but_test, shape).toarray())
    return Lists(validation=_of(scores, data.validation), test=_of(refitted, data.test)), note


def _kept(runs: Mapping[str, Sequence[Lists]]) -> list[Kept]:
    """Keep users' own values of the test lists, to compare rows user by user."""
    return [
        Kept(
            head="interaction",
            metric=metric,
            predictions={name: [of(lists.test) for lists in found] for name, found in runs.items()},
        )
        for metric, of in METRICS.items()
    ]


def _row(name: str, data: LeaveOneOut, runs: Sequence[Lists], note: str, *, ours: bool) -> ModelRow:
    order: dict[str, Figure] = {
        metric: user_figure([of(r.test) for r in runs], [of(r.validation) for r in runs])
        for metric, of in METRICS.items()
    }
    heads: dict[str, Mapping[str, Figure]] = {"interaction": order}
    if ours:
        heads["rating"] = {
            "rmse": over_rows(
                rmse,
                data.test_stars,
                [r.stars for r in runs if r.stars is not None],
                [rmse(data.held.labels["rating"], r.known_stars) for r in runs if r.known_stars is not None],
            )
        }
    return ModelRow(name=name, heads=heads, seeds=len(runs), note=note, ours=ours)
