"""Census-income: income and never married of one person, from one model; no users, no items.

Every trunk has the same inputs, budget and number of parameters. Settings were tuned by hand on validation
rows, a tenth of the training file; the epoch is chosen there too. What is scored is then trained on the whole
training file, for as many epochs; so are the baselines, one model a head. The test file takes part in no
choice.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.quality.baselines.tuned_trees import trees_of_heads
from benchmarks.quality.models.fitting import Budget, fit_best, trunks_of_one_size
from benchmarks.quality.models.tabular_ranker import TabularRanker, tabular_batch, tabular_specs
from benchmarks.quality.quality_set import Measure, QualitySet, Row, Run, baseline
from benchmarks.quality.readers.census_reader import CATEGORIES, LABELS, NUMBERS, TabularRows, census_rows
from recsys.batch import Batch
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import auc
from recsys.model.embeddings import LocalTables
from recsys.tasks import TaskSpec

PUBLISHED = {
    f"{name} (torch-rechub)": {"income": {"auc": income}, "never_married": {"auc": married}}
    for name, income, married in (
        ("shared_bottom", 0.9560, 0.9948),
        ("mmoe", 0.9579, 0.9950),
        ("ple", 0.9593, 0.9950),
        ("aitm", 0.9595, 0.9951),
    )
}
TASKS = tuple(TaskSpec(name=n, feedback=n, head="binary", window="1d") for n in LABELS)
SHAPE = TrunkConfig(name="mmoe", num_experts=8, task_experts=1, hidden=(16,))
BUDGET = Budget(epochs=8, learning_rate=3e-3, sparse_learning_rate=0.1, weight_decay=1e-4, warmup_steps=100)
DIM = 4
HEAD_HIDDEN = 8
DROPOUT = 0.0
COLUMN_DROPOUT = 0.05
"""Of the columns' values in training: dropping inputs, as word dropout does (Iyyer et al., ACL 2015)."""
ENSEMBLE_SIZE = 4
BATCH_SIZE = 512
SCORE_ROWS = 8192
TRIALS = 3
PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1)
MAX_ITERATIONS = 1000

Rows = Mapping[str, TabularRows]
"""Of "train", "validation" and "test"."""


def open_census(folder: Path, scratch: Path) -> QualitySet:
    """Read both files; choose on a tenth of the training file, score the test file."""
    del scratch
    rows = census_rows(folder)
    return QualitySet(
        name="census-income",
        protocol="train and test files as published, no instance_weight; a tenth of train chooses settings "
        "and epoch, then every row is fitted again on all of train",
        interval="95 %, bootstrap of the test rows, all seeds on each draw; differences draw seeds too",
        budget=f"one setting for all trunks, found on validation; {BUDGET.epochs} epochs, the best one kept",
        rows={
            **{name: Row(partial(train_trunk, shape, rows)) for name, shape in trunk_shapes(rows).items()},
            "lightgbm": baseline(partial(fit_trees, rows)),
            "logistic_regression": baseline(partial(fit_linear, rows)),
        },
        validation=_measures(rows["validation"]),
        test=_measures(rows["test"]),
        published=PUBLISHED,
        facts={f"{part}_rows": found.size for part, found in rows.items()},
    )


def _measures(rows: TabularRows) -> list[Measure]:
    """Measure both heads; a person is one row."""
    person = np.arange(rows.size)
    return [
        Measure(head=h, metric="auc", output=h, pooled="auc", label=rows.labels[h], user=person)
        for h in LABELS
    ]


def trunk_shapes(rows: Rows) -> dict[str, TrunkConfig]:
    """Give every trunk at the number of parameters of `SHAPE`."""
    num_in = rows["train"].ids.shape[1] * DIM + rows["train"].numbers.shape[1]
    return trunks_of_one_size(SHAPE, num_in, LABELS)


def train_trunk(shape: TrunkConfig, rows: Rows, seed: int) -> Run:
    """Train one trunk with both heads, as an ensemble, twice: for the epoch, and on all of train.

    The first training is on `train` and keeps the epoch that `validation` likes best; the second, from
    the same seed, is on both for as many epochs, and predicts the test rows.
    """
    train, validation = rows["train"], rows["validation"]

    def loss(model: TabularRanker, tables: LocalTables) -> float:
        found = scores(model, tables, validation)
        return -sum(auc(validation.labels[head], found[head]) for head in LABELS)

    chosen, tables, epoch = _fit(shape, train, seed, loss)
    known = scores(chosen, tables, validation)
    final, tables, _ = _fit(shape, train.with_rows(validation), seed, None, stop_after=epoch)
    return Run(validation=known, test=scores(final, tables, rows["test"]), note=f"epoch {epoch}")


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
        ensemble_size=ENSEMBLE_SIZE,
    )
    specs = tabular_specs(train.num_ids, DIM, len(TASKS), ENSEMBLE_SIZE)
    tables = LocalTables(specs, BUDGET.sparse_learning_rate, seed)
    rng = np.random.default_rng(seed)
    epoch = fit_best(
        model,
        tables,
        lambda: _batches(train, rng),
        train.size // BATCH_SIZE,
        TASKS,
        BUDGET,
        None if loss is None else lambda: loss(model, tables),
        stop_after,
    )
    return model, tables, epoch


@torch.no_grad()
def scores(model: TabularRanker, tables: LocalTables, rows: TabularRows) -> dict[str, np.ndarray]:
    """Give logits [N] per task."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in LABELS}
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
    labels = {name: torch.from_numpy(rows.labels[name][chosen]) for name in LABELS}
    ids, numbers = (torch.from_numpy(of[chosen]) for of in (rows.ids, rows.numbers))
    return tabular_batch(ids, numbers, labels, rows.num_ids * ENSEMBLE_SIZE)


def fit_trees(rows: Rows) -> Run:
    """Fit LightGBM per head: the best of `TRIALS` drawn settings, then on all rows of the training file.

    Raises: ConfigError when LightGBM is not installed.
    """
    known = pl.concat([rows[part].frame for part in ("train", "validation")])
    features = {part: _tree_matrix(found.frame, known) for part, found in rows.items()}
    features["before"] = np.concatenate([features["train"], features["validation"]])
    labels = {part: rows[part].labels for part in ("train", "validation")} | {"before": _known_labels(rows)}
    categories = range(len(NUMBERS), len(NUMBERS) + len(CATEGORIES))
    return trees_of_heads(dict.fromkeys(LABELS, True), features, labels, categories, TRIALS)


def fit_linear(rows: Rows) -> Run:
    """Fit a logistic regression per head on one-hot ids and numbers; its penalty is chosen on validation."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    matrix = {part: _one_hot(part_rows) for part, part_rows in rows.items()}
    everything = sparse.vstack([matrix["train"], matrix["validation"]], format="csr")
    validation, test, chosen = {}, {}, []

    def fitted(penalty: float, features: Any, label: np.ndarray) -> Any:
        return LogisticRegression(C=1 / penalty, max_iter=MAX_ITERATIONS).fit(features, label)

    for head, label in _known_labels(rows).items():
        train, truth = (rows[part].labels[head] for part in ("train", "validation"))
        tried = {
            p: fitted(p, matrix["train"], train).decision_function(matrix["validation"]) for p in PENALTIES
        }
        chosen.append(max(tried, key=lambda p: auc(truth, tried[p])))
        validation[head] = tried[chosen[-1]]
        test[head] = fitted(chosen[-1], everything, label).decision_function(matrix["test"])
    return Run(validation=validation, test=test, note=f"penalty {chosen}")


def _known_labels(rows: Rows) -> dict[str, np.ndarray]:
    """Give the labels of all rows of the training file."""
    return {
        head: np.concatenate([rows[part].labels[head] for part in ("train", "validation")]) for head in LABELS
    }


def _tree_matrix(frame: pl.DataFrame, known: pl.DataFrame) -> np.ndarray:
    """Give numbers, then categories by their place among the known values, -1 for others: float32 [N, F]."""
    parts = [frame[n].to_numpy() for n in NUMBERS]
    for name in CATEGORIES:
        places = {value: i for i, value in enumerate(sorted(known[name].unique().to_list()))}
        parts.append(frame[name].replace_strict(places, default=-1, return_dtype=pl.Int64).to_numpy())
    return np.stack(parts, axis=1).astype(np.float32)


def _one_hot(rows: TabularRows) -> Any:
    from scipy import sparse

    num, width = rows.ids.shape
    starts = np.arange(0, num * width + 1, width)
    ones = np.ones(num * width, np.float32)
    ids = sparse.csr_matrix((ones, rows.ids.ravel(), starts), (num, rows.num_ids))
    return sparse.hstack([sparse.csr_matrix(rows.numbers), ids], format="csr")
