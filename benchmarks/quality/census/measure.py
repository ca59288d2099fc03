"""Census-income: income and never married of one person, from one model; no users, no items.

Every trunk has the same inputs, budget and number of parameters. Settings were tuned by hand on validation
rows, a tenth of the training file; the epoch is chosen there too. What is scored is then trained on the whole
training file, for as many epochs. The test file takes part in no choice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.models.tabular_ranker import TabularRanker, tabular_batch, tabular_specs
from benchmarks.quality.census.baselines import fit_linear, fit_trees
from benchmarks.quality.census.reader import LABELS, TabularRows, census_rows
from benchmarks.quality.models.fitting import Budget, fit_best, trunks_of_one_size
from benchmarks.quality.report import (
    Kept,
    ModelRow,
    QualityReport,
    against_baselines,
    over_rows,
    wanted_rows,
)
from recsys.batch import Batch
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import auc
from recsys.model.embeddings import LocalTables
from recsys.model.trunks import TRUNKS
from recsys.tasks import TaskSpec
from training.trainer import FitSettings, has_fast_bf16

PUBLISHED = {
    name: {"income": {"auc": income}, "never_married": {"auc": married}}
    for name, income, married in (
        ("shared_bottom (torch-rechub)", 0.9560, 0.9948),
        ("mmoe (torch-rechub)", 0.9579, 0.9950),
        ("ple (torch-rechub)", 0.9593, 0.9950),
        ("aitm (torch-rechub)", 0.9595, 0.9951),
    )
}
TASKS = tuple(TaskSpec(name=n, feedback=n, head="binary", window="1d") for n in LABELS)
BASELINES = {"lightgbm": fit_trees, "logistic_regression": fit_linear}
SHAPE = TrunkConfig(name="mmoe", num_experts=8, task_experts=1, hidden=(16,))
BUDGET = Budget(epochs=8, learning_rate=3e-3, sparse_learning_rate=0.1, weight_decay=1e-4)
DIM = 4
HEAD_HIDDEN = 8
DROPOUT = 0.0
COLUMN_DROPOUT = 0.05
"""Of the columns' values in training: dropping inputs, as word dropout does (Iyyer et al., ACL 2015)."""
MEMBERS = 4
BATCH_SIZE = 512
SCORE_ROWS = 8192

Scores = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One run of one model: predictions of the validation and the test rows, per task."""

    validation: Scores
    test: Scores
    epoch: int = 0


def measure_census(
    folder: Path, seeds: int, asked: Sequence[str], news: Callable[[str], None]
) -> QualityReport:
    """Train every trunk and the baselines; choose on validation; score the test file."""
    wanted = wanted_rows([*TRUNKS, *BASELINES], asked)
    rows = census_rows(folder)
    shapes = trunk_shapes(rows["train"])
    table: list[ModelRow] = []
    found: dict[str, list[Scored]] = {}
    for name, shape in ((n, s) for n, s in shapes.items() if n in wanted):
        found[name] = []
        for seed in range(seeds):
            run = train_trunk(shape, rows, seed)
            found[name].append(run)
            known = _said(rows["validation"], run.validation)
            news(f"{name}, seed {seed}: epoch {run.epoch}, validation {known}")
        table.append(_row(name, rows, found[name], f"trunk {list(shape.hidden)}", ours=True))
    for name, fit in ((n, f) for n, f in BASELINES.items() if n in wanted):
        valid, test, note = fit(rows)
        found[name] = [Scored(validation=valid, test=test)]
        table.append(_row(name, rows, found[name], note, ours=False))
        news(f"{name}: {note}")
    return QualityReport(
        name="census-income",
        protocol="train and test files as published, no instance_weight; a tenth of train chooses settings "
        "and epoch, then every row is fitted again on all of train",
        interval="95 %, bootstrap of the test rows, all seeds on each draw; differences draw seeds too",
        budget=f"one setting for all trunks, found on validation; {BUDGET.epochs} epochs, the best one kept",
        rows=tuple(table),
        published=PUBLISHED,
        differences=tuple(against_baselines(table, _kept(rows["test"], found))),
        facts={f"{part}_rows": found.size for part, found in rows.items()},
    )


def _kept(test: TabularRows, found: Mapping[str, Sequence[Scored]]) -> list[Kept]:
    """Keep what paired differences are made of; a person is one row."""
    return [
        Kept(
            head=t.name,
            metric="auc",
            predictions={name: [run.test[t.name] for run in runs] for name, runs in found.items()},
            pooled="auc",
            label=test.labels[t.name],
            user=np.arange(test.size),
        )
        for t in TASKS
    ]


def trunk_shapes(rows: TabularRows) -> dict[str, TrunkConfig]:
    """Give every trunk at the number of parameters of `SHAPE`."""
    return trunks_of_one_size(SHAPE, rows.ids.shape[1] * DIM + rows.numbers.shape[1], [t.name for t in TASKS])


def train_trunk(shape: TrunkConfig, rows: Mapping[str, TabularRows], seed: int) -> Scored:
    """Train one trunk with both heads, as `MEMBERS` members, twice: for the epoch, and on all of train.

    The first training learns from `train` and keeps the epoch that `validation` likes best; the second, from
    the same seed, learns from both for as many epochs, and predicts the test rows.
    """
    train, validation = rows["train"], rows["validation"]

    def loss(model: TabularRanker, tables: LocalTables) -> float:
        return -sum(_aucs(validation, scores(model, tables, validation)).values())

    chosen, tables, epoch = _fit(shape, train, seed, loss)
    known = scores(chosen, tables, validation)
    final, tables, _ = _fit(shape, train.with_rows(validation), seed, None, stop_after=epoch)
    return Scored(validation=known, test=scores(final, tables, rows["test"]), epoch=epoch)


def _fit(
    shape: TrunkConfig,
    train: TabularRows,
    seed: int,
    loss: Callable[[TabularRanker, LocalTables], float] | None,
    stop_after: int | None = None,
) -> tuple[TabularRanker, LocalTables, int]:
    torch.manual_seed(seed)
    model = TabularRanker(
        TASKS,
        num_columns=train.ids.shape[1],
        num_numbers=train.numbers.shape[1],
        dim=DIM,
        trunk=shape,
        head_hidden=HEAD_HIDDEN,
        dropout=DROPOUT,
        members=MEMBERS,
    )
    specs = tabular_specs(train.num_ids, DIM, len(TASKS), MEMBERS)
    tables = LocalTables(specs, BUDGET.sparse_learning_rate, seed)
    rng = np.random.default_rng(seed)
    epoch = fit_best(
        model,
        tables,
        lambda: _batches(train, rng),
        TASKS,
        _settings(train.size),
        epochs=BUDGET.epochs,
        decay=BUDGET.decay,
        loss=None if loss is None else lambda: loss(model, tables),
        stop_after=stop_after,
    )
    model.eval()
    return model, tables, epoch


@torch.no_grad()
def scores(model: TabularRanker, tables: LocalTables, rows: TabularRows) -> Scores:
    """Give logits [N] per task."""
    found: dict[str, list[np.ndarray]] = {t.name: [] for t in TASKS}
    for start in range(0, rows.size, SCORE_ROWS):
        batch = _batch(rows, np.arange(start, min(start + SCORE_ROWS, rows.size)))
        for task, logits in model.logits(batch, tables.lookup(batch.rows)).items():
            found[task].append(logits.numpy())
    return {task: np.concatenate(parts) for task, parts in found.items()}


def _batches(rows: TabularRows, rng: np.random.Generator) -> Iterator[Batch]:
    order = rng.permutation(rows.size)
    rows = rows.hidden(COLUMN_DROPOUT, rng)
    for start in range(0, rows.size - BATCH_SIZE + 1, BATCH_SIZE):
        yield _batch(rows, order[start : start + BATCH_SIZE])


def _batch(rows: TabularRows, chosen: np.ndarray) -> Batch:
    labels = {t.name: torch.from_numpy(rows.labels[t.name][chosen]) for t in TASKS}
    return tabular_batch(
        torch.from_numpy(rows.ids[chosen]),
        torch.from_numpy(rows.numbers[chosen]),
        labels,
        rows.num_ids * MEMBERS,
    )


def _settings(num_rows: int) -> FitSettings:
    return FitSettings(
        learning_rate=BUDGET.learning_rate,
        weight_decay=BUDGET.weight_decay,
        retrieval_task=None,
        temperature=1.0,
        total_steps=BUDGET.epochs * (num_rows // BATCH_SIZE),
        warmup_steps=100,
        bf16=has_fast_bf16(),
    )


def _row(
    name: str, rows: Mapping[str, TabularRows], runs: Sequence[Scored], note: str, *, ours: bool
) -> ModelRow:
    validation, test = rows["validation"], rows["test"]
    known = [_aucs(validation, run.validation) for run in runs]
    heads = {
        t.name: {
            "auc": over_rows(
                auc, test.labels[t.name], [r.test[t.name] for r in runs], [k[t.name] for k in known]
            )
        }
        for t in TASKS
    }
    return ModelRow(name=name, heads=heads, seeds=len(runs), note=note, ours=ours)


def _aucs(rows: TabularRows, found: Scores) -> dict[str, float]:
    return {t.name: auc(rows.labels[t.name], found[t.name]) for t in TASKS}


def _said(rows: TabularRows, found: Scores) -> str:
    return ", ".join(f"{task} {value:.5f}" for task, value in _aucs(rows, found).items())
