"""Retailrocket: view, add to cart and purchase of one pair, from one model; the set has no time.

The split is ours, as none is published: a fifth of every visitor's pairs is the test, a tenth validates,
drawn once for all rows and seeds. A purchase is no strict child of a view (93 % have one), so no head hangs
on another. The view head learns from negatives and makes the lists, of views and of purchases; the others
learn among pairs that have an event. Heads are evaluated among held-out pairs, which all have some event, and
by lists of the whole catalogue without what the visitor met in training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.quality.baselines.biases import fit_biases
from benchmarks.quality.baselines.lists import BASELINES
from benchmarks.quality.baselines.rankers import ranker_row
from benchmarks.quality.caserec.reader import EVENTS, read_retailrocket
from benchmarks.quality.full_lists import (
    ListsOfHeads,
    Parts,
    Wanted,
    kept_lists,
    list_figures,
    list_metrics,
    model_scorer,
    parts_of,
    positives,
)
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.negatives import negatives_of
from benchmarks.quality.models.pairs import PairModel, Pairs, PairSetting, Sides, train_pairs
from benchmarks.quality.models.spectral import spectral_start
from benchmarks.quality.report import (
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
from recsys.metrics.pointwise import auc
from recsys.model.trunks import TRUNKS
from recsys.tasks import TaskSpec

TASKS = tuple(TaskSpec(name=n, feedback=n, head="binary", window="1d") for n in EVENTS)
RANKED = ("view", "purchase")
"""Heads that are evaluated by lists, of their own held-out items."""
RANKED_BY = "view"
"""The head that makes all lists and alone learns from negatives; the others know pairs with an event."""
AMONG = ("cart", "purchase")
"""Heads that are evaluated among held-out pairs; nearly all of these have a view."""
SHAPE = TrunkConfig(name="mmoe", num_experts=2, task_experts=1, hidden=(48, 24))
BUDGET = Budget(epochs=3, learning_rate=4e-3, sparse_learning_rate=0.03, weight_decay=1e-4)
DIM = 64
BATCH_SIZE = 4096
ROW_DROPOUT = 0.0
START_SCALE = 40.0
"""Of the spectral start's products, found with the other settings."""
NEGATIVES = 4
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
TEST_USERS, VALIDATION_USERS, EPOCH_USERS = 300, 100, 40
"""At most so many visitors' lists per head, drawn once for all rows; the last for the choice of the epoch."""
PROTOCOL = (
    "our split (none is published): per visitor 70 / 10 / 20 % of the pairs; AUC among held-out pairs; lists "
    f"of all items but the visitor's training ones, at most {TEST_USERS} visitors a head"
)
START_PENALTY, START_SLOPE = 20.0, 6.0
"""Of the biases that heads start from: imaginary average labels, and logits per unit of probability."""
BIAS_MODEL = "bias_model"
BIAS_PENALTIES = (1.0, 5.0, 20.0)
SHARED, ALONE = "mmoe", "single_task"
"""Does sharing help? Both have all heads, the second a trunk a head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one run gives of some held-out pairs: predictions [N] and metrics of lists [U], per head."""

    among: Mapping[str, np.ndarray]
    lists: ListsOfHeads


def measure_retailrocket(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Train every trunk; evaluate it and simple models on the test part; choose on validation."""
    names = wanted_rows([*TRUNKS, BIAS_MODEL, *BASELINES], asked)
    parts = split_retailrocket(*read_retailrocket(folder))
    rows: list[ModelRow] = []
    test: dict[str, list[Found]] = {}
    for name, shape in ((n, s) for n, s in setting().trunks(SHAPE).items() if n in names):
        runs = []
        for seed in range(seeds):
            model, epoch = train_trunk(parts, shape, seed)
            runs.append(
                (
                    evaluated(model, parts.validation, parts.known_lists),
                    evaluated(model, parts.test, parts.lists),
                )
            )
            news(f"{name}, seed {seed}: epoch {epoch}, validation {_said(parts, runs[-1][0])}")
        rows.append(_row(parts, name, runs))
        test[name] = [found for _, found in runs]
    if BIAS_MODEL in names:
        row, found = _bias_row(parts)
        rows.append(row)
        test[BIAS_MODEL] = [found]
    for name in (n for n in BASELINES if n in names):
        row, lists = ranker_row(parts, name)
        rows.append(row)
        test[name] = [Found(among={}, lists=lists)]
    kept = _kept(parts, test)
    asked_for = [paired(of, SHARED, ALONE) for of in kept if {SHARED, ALONE} <= set(of.predictions)]
    return QualityReport(
        name="retailrocket",
        protocol=PROTOCOL,
        interval="95 %, bootstrap of visitors, all seeds on each draw; differences draw seeds too",
        budget=f"one setting for all trunks, by hand on validation; {BUDGET.epochs} epochs, the best kept",
        rows=tuple(rows),
        facts={
            **{f"{part}_pairs": getattr(parts, part).size for part in ("train", "validation", "test")},
            **{f"{head}_lists": found.users.size for head, found in parts.lists.items()},
        },
        differences=(*asked_for, *against_baselines(rows, kept)),
    )


def split_retailrocket(pairs: Pairs, sides: Sides) -> Parts:
    """Part each visitor's pairs, as all rows and seeds see them."""
    return parts_of(pairs, sides, (TEST_SHARE, VALIDATION_SHARE), RANKED, (TEST_USERS, VALIDATION_USERS))


def train_trunk(parts: Parts, shape: TrunkConfig, seed: int) -> tuple[PairModel, int]:
    """Train all heads; the epoch has the largest sum of validation AUCs and, of some lists, NDCGs."""
    known = {h: replace(of, users=of.users[:EPOCH_USERS]) for h, of in parts.known_lists.items()}

    def loss(model: PairModel) -> float:
        found = evaluated(model, parts.validation, known)
        aucs = sum(auc(parts.validation.labels[h], found.among[h]) for h in AMONG)
        return -aucs - sum(float(m["ndcg"].mean()) for m in found.lists.values())

    unmet = {task.name: 0.0 if task.name == RANKED_BY else np.nan for task in TASKS}
    drawn = negatives_of(parts.train, parts.sides.shape[1], NEGATIVES, unmet)
    return train_pairs(parts.sides, parts.train, shape, setting(), seed, loss, drawn, partial(start, parts))


def start(parts: Parts, model: PairModel) -> None:
    """Set a new model's lists to PureSVD's, and its other heads to visitors' and items' biases."""
    vectors = spectral_start(positives(parts.train, parts.sides.shape), DIM, START_SCALE)
    vectors.put(model, RANKED_BY)
    for head in AMONG:
        fit_biases(parts.train, head, START_PENALTY, parts.sides.shape).put(model, head, START_SLOPE)


def setting() -> PairSetting:
    """Give how every trunk is trained."""
    return PairSetting(tasks=TASKS, budget=BUDGET, dim=DIM, batch_size=BATCH_SIZE, row_dropout=ROW_DROPOUT)


def evaluated(model: PairModel, held_out: Pairs, lists: Mapping[str, Wanted]) -> Found:
    """Predict held-out pairs and rank the catalogue."""
    predicted = model.predict(held_out)
    return Found(
        among={h: predicted[h] for h in AMONG},
        lists={h: list_metrics(model_scorer(model, RANKED_BY), of) for h, of in lists.items()},
    )


def _row(
    parts: Parts, name: str, runs: Sequence[tuple[Found, Found]], note: str = "", *, ours: bool = True
) -> ModelRow:
    """Make a row of runs' (validation, test)."""
    heads: dict[str, dict[str, Figure]] = {task.name: {} for task in TASKS}
    for head in runs[0][0].among:
        known = [auc(parts.validation.labels[head], v.among[head]) for v, _ in runs]
        heads[head]["auc"] = over_rows(
            auc, parts.test.labels[head], [t.among[head] for _, t in runs], known, group=parts.test.user
        )
    for head in runs[0][0].lists:
        heads[head] |= list_figures([v.lists[head] for v, _ in runs], [t.lists[head] for _, t in runs])
    return ModelRow(
        name=name, heads={h: f for h, f in heads.items() if f}, seeds=len(runs), note=note, ours=ours
    )


def _kept(parts: Parts, test: Mapping[str, Sequence[Found]]) -> list[Kept]:
    """Keep what rows found of the test part, per figure of those that have it."""
    kept = []
    for head in AMONG:
        found = {row: [run.among[head] for run in runs] for row, runs in test.items() if runs[0].among}
        label, user = parts.test.labels[head], parts.test.user
        kept.append(Kept(head=head, metric="auc", predictions=found, pooled="auc", label=label, user=user))
    for head in RANKED:
        ranked = {row: [run.lists[head] for run in runs] for row, runs in test.items() if runs[0].lists}
        kept.extend(kept_lists(head, ranked))
    return kept


def _bias_row(parts: Parts) -> tuple[ModelRow, Found]:
    """Evaluate visitors' and items' biases of each label among held-out pairs; give their test part too."""
    found: list[dict[str, np.ndarray]] = [{}, {}]
    chosen = []
    for head in AMONG:
        fitted = {p: fit_biases(parts.train, head, p, parts.sides.shape) for p in BIAS_PENALTIES}
        tried = {
            p: auc(parts.validation.labels[head], b.predict(parts.validation)) for p, b in fitted.items()
        }
        chosen.append(max(tried, key=lambda p: tried[p]))
        for predictions, part in zip(found, (parts.validation, parts.test), strict=True):
            predictions[head] = fitted[chosen[-1]].predict(part)
    known, test = (Found(among=f, lists={}) for f in found)
    return _row(parts, BIAS_MODEL, [(known, test)], f"penalty {chosen}", ours=False), test


def _said(parts: Parts, found: Found) -> str:
    aucs = [f"{h} AUC {auc(parts.validation.labels[h], p):.4f}" for h, p in found.among.items()]
    return ", ".join([*aucs, *(f"{h} NDCG {m['ndcg'].mean():.4f}" for h, m in found.lists.items())])
