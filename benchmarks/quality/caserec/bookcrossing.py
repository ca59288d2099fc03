"""Book-Crossing: who has which book, and the rating 1 to 10 of the fifth of those that have one.

The split is ours, as none is published: a fifth of every user's books is the test, a tenth validates, drawn
once for all rows and seeds. Ratings are missing not at random and no ratings of books drawn at random exist:
a row with weights by inverse propensity is evaluated on chosen ratings, which can show its cost, not its use.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality.baselines.biases import fit_biases
from benchmarks.quality.baselines.lists import BASELINES
from benchmarks.quality.baselines.rankers import ranker_row
from benchmarks.quality.caserec.bookcrossing_rating import Predict, biases, mean_rating, rated, trees
from benchmarks.quality.caserec.reader import read_bookcrossing
from benchmarks.quality.full_lists import (
    ListsOfHeads,
    Parts,
    kept_lists,
    list_figures,
    list_metrics,
    model_scorer,
    parts_of,
    positives,
)
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.negatives import negatives_of
from benchmarks.quality.models.pairs import PairModel, PairSetting, train_pairs
from benchmarks.quality.models.spectral import spectral_start
from benchmarks.quality.report import (
    Difference,
    Figure,
    Kept,
    ModelRow,
    QualityReport,
    against_baselines,
    over_rows,
    paired,
    wanted_rows,
)
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import rmse
from recsys.model.trunks import TRUNKS
from recsys.tasks import TaskSpec

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
TEST_USERS, VALIDATION_USERS, EPOCH_USERS = 300, 100, 30
"""At most so many users' lists, drawn once for all rows; the last for the choice of the epoch."""
ALONE, DEBIASED = "rating_alone", "mmoe_ips"
RATERS: dict[str, Callable[[Parts], tuple[Predict, str]]] = {
    "mean": mean_rating,
    "bias_model": biases,
    "lightgbm": trees,
}
QUESTIONS = (("mmoe", ALONE), (DEBIASED, "mmoe"))
"""Does sharing help the rating, and do weights?"""
PROTOCOL = (
    "our split (none is published): per user 70 / 10 / 20 % of the books, rated or not; ratings of held-out "
    f"books; lists of all books but the user's training ones, at most {TEST_USERS} users"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one run gives of a held-out part: ratings of its rated pairs [N], and metrics of lists [U]."""

    rating: np.ndarray
    lists: Mapping[str, np.ndarray] | None
    """None where the row does not rank."""


Runs = Sequence[tuple[Found, Found]]
"""Of validation and of test, per seed."""


def measure_bookcrossing(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Train every trunk with both heads, the rating alone and with weights; evaluate them all."""
    names = wanted_rows([*TRUNKS, DEBIASED, ALONE, *RATERS, *BASELINES], asked)
    parts = parts_of(
        *read_bookcrossing(folder),
        (TEST_SHARE, VALIDATION_SHARE),
        (INTERACTION.name,),
        (TEST_USERS, VALIDATION_USERS),
    )
    runs: dict[str, Runs] = {}
    rows = []
    for name in (n for n in names if n in (*TRUNKS, DEBIASED, ALONE)):
        runs[name] = [evaluated(train_row(parts, name, seed), parts) for seed in range(seeds)]
        rows.append(_row(parts, name, runs[name], ours=name != ALONE))
        news(f"{name}: validation {_said(parts, runs[name])}")
    for name in (n for n in names if n in RATERS):
        predict, note = RATERS[name](parts)
        found = [Found(rating=predict(rated(part)), lists=None) for part in (parts.validation, parts.test)]
        runs[name] = [(found[0], found[1])]
        rows.append(_row(parts, name, runs[name], note, ours=False))
    rankers = {}
    for name in (n for n in names if n in BASELINES):
        row, rankers[name] = ranker_row(parts, name)
        rows.append(row)
    return QualityReport(
        name="book-crossing",
        protocol=PROTOCOL,
        interval="95 %, bootstrap of users, all seeds on each draw; differences draw seeds too",
        budget=f"one setting for all our rows, by hand on validation; {BUDGET.epochs} epochs, the best kept",
        rows=tuple(rows),
        facts={
            "train_ratings": rated(parts.train).size,
            "test_ratings": rated(parts.test).size,
            "test_lists": parts.lists[INTERACTION.name].users.size,
        },
        differences=tuple(_differences(rows, _kept(parts, runs, rankers))),
    )


def train_row(parts: Parts, name: str, seed: int) -> PairModel:
    """Train one of our rows; the epoch has the least rating RMSE less NDCG (of some lists) on validation.

    The rating alone sees the same batches, as many steps of as many ratings, without the other label.
    """
    setting = setting_of(name)
    known = {h: replace(of, users=of.users[:EPOCH_USERS]) for h, of in parts.known_lists.items()}

    def loss(model: PairModel) -> float:
        stars = rated(parts.validation)
        error = rmse(stars.labels["rating"], model.predict(stars)["rating"])
        if name == ALONE:
            return error
        return error - float(
            list_metrics(model_scorer(model, INTERACTION.name), known[INTERACTION.name])["ndcg"].mean()
        )

    shape = setting.trunks(SHAPE)[name if name in TRUNKS else SHAPE.name]
    unrated = {INTERACTION.name: 0.0, RATING.name: np.nan}
    drawn = negatives_of(parts.train, parts.sides.shape[1], NEGATIVES, unrated)
    return train_pairs(parts.sides, parts.train, shape, setting, seed, loss, drawn, partial(start, parts))[0]


def start(parts: Parts, model: PairModel) -> None:
    """Set a new model's lists, where it makes any, to PureSVD's, and its ratings to biases."""
    if len(model.tasks) > 1:
        vectors = spectral_start(positives(parts.train, parts.sides.shape), DIM, START_SCALE)
        vectors.put(model, INTERACTION.name)
    else:
        torch.nn.init.zeros_(model.ranker.product)
    fit_biases(rated(parts.train), RATING.name, START_PENALTY, parts.sides.shape).put(model, RATING.name)


def setting_of(name: str) -> PairSetting:
    """Give how a row is trained: all the same, but for heads and weights."""
    rating = RATING.model_copy(update={"debias": "ips" if name == DEBIASED else None})
    tasks = (rating,) if name == ALONE else (INTERACTION, rating)
    return PairSetting(tasks=tasks, budget=BUDGET, dim=DIM, batch_size=BATCH_SIZE, row_dropout=ROW_DROPOUT)


def evaluated(model: PairModel, parts: Parts) -> tuple[Found, Found]:
    """Predict the ratings of validation and test, and rank the catalogue where the model has the head."""
    ranks = any(task.name == INTERACTION.name for task in model.tasks)

    def found(part: str) -> Found:
        pairs, lists = rated(getattr(parts, part)), parts.lists if part == "test" else parts.known_lists
        metrics = None
        if ranks:
            metrics = list_metrics(model_scorer(model, INTERACTION.name), lists[INTERACTION.name])
        return Found(rating=model.predict(pairs)["rating"], lists=metrics)

    return found("validation"), found("test")


def _row(parts: Parts, name: str, runs: Runs, note: str = "", *, ours: bool) -> ModelRow:
    known, test = rated(parts.validation), rated(parts.test)
    heads: dict[str, dict[str, Figure]] = {
        "rating": {
            "rmse": over_rows(
                rmse,
                test.labels["rating"],
                [t.rating for _, t in runs],
                [rmse(known.labels["rating"], v.rating) for v, _ in runs],
                group=test.user,
            )
        }
    }
    if runs[0][1].lists is not None:
        heads[INTERACTION.name] = list_figures(
            [v.lists for v, _ in runs if v.lists is not None],
            [t.lists for _, t in runs if t.lists is not None],
        )
    return ModelRow(name=name, heads=heads, seeds=len(runs), note=note, ours=ours)


def _kept(parts: Parts, runs: Mapping[str, Runs], rankers: Mapping[str, ListsOfHeads]) -> list[Kept]:
    """Keep what rows found of the test part: ratings of its rated pairs, and lists; the ratings first."""
    test = rated(parts.test)
    rating = Kept(
        head=RATING.name,
        metric="rmse",
        predictions={row: [t.rating for _, t in of] for row, of in runs.items()},
        pooled="rmse",
        label=test.labels["rating"],
        user=test.user,
    )
    lists = {row: [t.lists for _, t in of if t.lists is not None] for row, of in runs.items()}
    lists |= {row: [of[INTERACTION.name]] for row, of in rankers.items()}
    return [rating, *kept_lists(INTERACTION.name, {row: found for row, found in lists.items() if found})]


def _differences(rows: Sequence[ModelRow], kept: Sequence[Kept]) -> list[Difference]:
    """Answer the questions on the ratings; hold the chosen row against the baselines on all figures."""
    rating = kept[0]
    asked = [paired(rating, *of) for of in QUESTIONS if set(of) <= set(rating.predictions)]
    held = [(d.row, d.against, d.metric) for d in asked]
    return [
        *asked,
        *(d for d in against_baselines(rows, kept) if (d.row, d.against, d.metric) not in held),
    ]


def _said(parts: Parts, runs: Runs) -> str:
    label = rated(parts.validation).labels["rating"]
    said = f"RMSE {np.mean([rmse(label, v.rating) for v, _ in runs]):.4f}"
    lists = [v.lists["ndcg"].mean() for v, _ in runs if v.lists is not None]
    return f"{said}, NDCG {np.mean(lists):.4f}" if lists else said
