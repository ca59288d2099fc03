"""Baselines that are fitted: a linear model per head, and LightGBM on request, on the model's own features.

Both are fitted on the periods the bundle was trained on. The penalty and the number of trees are chosen on
the last of these periods, then the model is fitted on all.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from features.days import Days
from recsys.metrics.pointwise import log_loss, rmse
from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec
from training.baselines.boosted_trees import TreeColumns, TreeRows, grow, grow_again, require_lightgbm
from training.baselines.design import Design, RecentDays, Sample, design_of, training_samples
from training.data import EncodedRows, held_scores
from training.evaluation.eval_report import EvalTable
from training.evaluation.head_metrics import HeadMetrics, head_metrics
from training.evaluation.head_rows import HELD, MEASURED
from training.evaluation.list_groups import LIST_GROUP
from training.predict import BundlePredictor

PENALTIES = (1000.0, 100.0, 10.0)
"""Inverse prior variances of the coefficients that are tried."""
CHOOSE_ROWS = 40_000
MAX_ITERATIONS = 300
TREE_SETTINGS: dict[str, object] = {
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.6,
}

Predict = Callable[[Design], np.ndarray]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted baseline of one head and how it was fitted."""

    predict: Predict
    note: str


def fit_and_score(
    predictor: BundlePredictor,
    days: Days,
    rows: pl.DataFrame,
    *,
    seed: int,
    lightgbm: bool,
    on_head: Callable[[], None] = lambda: None,
) -> dict[str, EvalTable]:
    """Fit per head and measure on the rows of `score_rows`.

    Raises: ConfigError when lightgbm is asked for and not installed.
    """
    fitters: dict[str, Callable[[TaskSpec, Sample, int], Fitted]] = {"logistic_regression": _LinearFits()}
    if lightgbm:
        require_lightgbm()
        fitters["lightgbm"] = _fit_lightgbm
    heads: dict[str, dict[str, HeadMetrics]] = {name: {} for name in fitters}
    notes: dict[str, list[str]] = {name: [] for name in fitters}
    tasks, recent = predictor.bundle.config.tasks, RecentDays(predictor)
    samples = training_samples(predictor, days, tasks, seed)
    for task in tasks:
        sample = samples.pop(task.name, None)
        if sample is None or np.unique(sample.label).size < 2:
            continue
        fitted = {name: fit(task, sample, seed) for name, fit in fitters.items()}
        predict = {name: f.predict for name, f in fitted.items()}
        scored = score_fitted(predictor, days, rows, predict, task, recent)
        for name, one in fitted.items():
            heads[name][task.name] = head_metrics(task, scored, name)
            notes[name].append(f"{task.name}: {one.note}")
        on_head()
    return {
        name: EvalTable(heads=found, ranking=None, notes=tuple(notes[name]))
        for name, found in heads.items()
        if found
    }


class _LinearFits:
    """Fits heads one after the other; those that learn the rows of the one before share its matrix."""

    def __init__(self) -> None:
        self._rows: LinearRows | None = None

    def __call__(self, task: TaskSpec, sample: Sample, seed: int) -> Fitted:
        if self._rows is None or self._rows.design is not sample.design:
            self._rows = None  # two matrices are never in memory
            self._rows = LinearRows.of(sample.design)
        return fit_linear(task, sample, seed, rows=self._rows)


def held_out(sample: Sample, seed: int) -> np.ndarray:
    """Mark the rows that choose a setting: the last period, or a tenth when there is one period only."""
    last: np.ndarray = sample.period == sample.period.max()
    if last.all():
        last = np.random.default_rng(seed).random(last.size) < 0.1
    return last


def score_fitted(
    predictor: BundlePredictor,
    days: Days,
    rows: pl.DataFrame,
    predict: dict[str, Predict],
    task: TaskSpec,
    recent: RecentDays | None = None,
) -> pl.DataFrame:
    """Predict the rows again, period by period, in their order; also with the state held as lists began.

    Args: recent: has the days that other heads were given.
    """
    recent = recent or RecentDays(predictor)
    labelled = days.labelled_for(predictor.bundle.config.tasks)
    parts = []
    for key, part in sorted(rows.partition_by("date", as_dict=True, maintain_order=True).items()):
        scored = _score_day(recent, labelled, labelled.place(key[0]), part, predict)
        wanted = part.select("impression_id", *MEASURED, task.label)
        parts.append(wanted.join(scored, on=IMPRESSION_KEY, how="left", maintain_order="left"))
    return pl.concat(parts)


def _score_day(
    recent: RecentDays, days: Days, i: int, rows: pl.DataFrame, predict: dict[str, Predict]
) -> pl.DataFrame:
    """Predict day i whole. Args: rows: those of the day that are measured, with their lists."""
    predictor = recent.predictor

    def predicted(encoded: EncodedRows) -> dict[str, np.ndarray]:
        design = design_of(encoded, predictor.encoder, np.arange(encoded.size))
        return {name: f(design) for name, f in predict.items()}

    def score(held: Days) -> dict[str, np.ndarray]:
        return predicted(predictor.encode_day(held, i, ()))

    shown, live = days[i].table("examples", columns=IMPRESSION_KEY), predicted(recent.encoded(days, i))
    lists = shown.join(
        rows.select(*IMPRESSION_KEY, LIST_GROUP), on=IMPRESSION_KEY, how="left", maintain_order="left"
    )
    held = held_scores(live, score, days, i, lists[LIST_GROUP])
    return shown.hstack(pl.DataFrame(live | {f"{HELD}{name}": values for name, values in held.items()}))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRows:
    """Rows as a linear model reads them: standardised numbers and one-hot ids, for all heads that learn them.

    Those that choose a penalty, and those it is tried on, are rows of the same matrix.
    """

    design: Design
    mean: np.ndarray
    std: np.ndarray
    matrix: Any
    """CSR [N, F + ids], float32."""

    @classmethod
    def of(cls, design: Design) -> "LinearRows":
        """Standardise by all rows."""
        mean, std = design.numbers.mean(axis=0), design.numbers.std(axis=0) + 1e-6
        return cls(design=design, mean=mean, std=std, matrix=design.sparse(mean, std))


def fit_linear(
    task: TaskSpec,
    sample: Sample,
    seed: int,
    penalties: Sequence[float] = PENALTIES,
    rows: LinearRows | None = None,
) -> Fitted:
    """Fit a logistic or ridge regression on standardised numbers and one-hot ids.

    Args: penalties: of several, the best on held-out rows is taken; rows: of the sample's design, where
    another head learns the same.
    """
    rows = LinearRows.of(sample.design) if rows is None else rows
    penalty = penalties[0] if len(penalties) == 1 else _best(task, sample, seed, penalties, rows)
    model, note = _linear(task, rows.matrix, sample.label, sample.weight, penalty)
    kind = "logistic" if task.kind.probability else "ridge"
    note = f"{kind}, {sample.label.size} rows, penalty {penalty:g}, {note}"
    mean, std = rows.mean, rows.std  # what predicts does not keep the matrix
    return Fitted(lambda design: _predict(task, model, design.sparse(mean, std)), note)


def _best(task: TaskSpec, sample: Sample, seed: int, penalties: Sequence[float], rows: LinearRows) -> float:
    """Choose a penalty on held-out rows."""
    out = held_out(sample, seed)
    known, unknown = (_some(np.flatnonzero(chosen), seed) for chosen in (~out, out))
    matrices = rows.matrix[known], rows.matrix[unknown]
    measure = log_loss if task.kind.probability else rmse
    losses = {}
    for penalty in penalties:
        model, _ = _linear(task, matrices[0], sample.label[known], sample.weight[known], penalty)
        predicted = _predict(task, model, matrices[1])
        losses[penalty] = measure(sample.label[unknown], predicted, sample.weight[unknown])
    return min(losses, key=lambda p: losses[p])


def _linear(
    task: TaskSpec, matrix: Any, label: np.ndarray, weight: np.ndarray, penalty: float
) -> tuple[Any, str]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    model: Any = (
        LogisticRegression(C=1 / penalty, max_iter=MAX_ITERATIONS)
        if task.kind.probability
        else Ridge(alpha=penalty, solver="sparse_cg", max_iter=MAX_ITERATIONS)
    )
    with warnings.catch_warnings():
        # Said in the note instead.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(matrix, label, weight)
    steps = 0 if model.n_iter_ is None else int(np.max(model.n_iter_))
    note = f"{steps} iterations" if steps else "conjugate gradients"
    if steps >= MAX_ITERATIONS:
        note += " (the limit: not converged)"
    return model, note


def _predict(task: TaskSpec, model: Any, matrix: Any) -> np.ndarray:
    found: np.ndarray = (
        model.predict_proba(matrix)[:, 1]
        if task.kind.probability
        else np.clip(model.predict(matrix), task.low, task.high)
    )
    return found.astype(np.float64)


def _fit_lightgbm(task: TaskSpec, sample: Sample, seed: int) -> Fitted:
    """Fit gradient-boosted trees; their number is chosen on the held-out rows."""
    objective = "binary" if task.kind.probability else "regression"
    columns, out = TreeColumns.of(sample.design), held_out(sample, seed)

    def rows(of: Sample) -> TreeRows:
        return TreeRows(features=columns.features(of.design), label=of.label, weight=of.weight)

    chosen = grow(
        rows(sample.take(~out)),
        rows(sample.take(out)),
        TREE_SETTINGS | {"objective": objective, "seed": seed},
        categories=columns.categories,
        patience=30,
    )
    trees = grow_again(chosen, rows(sample))
    note = f"{sample.label.size} rows, {trees.count} trees"
    return Fitted(lambda design: trees.predict(columns.features(design)), note)


def _some(rows: np.ndarray, seed: int) -> np.ndarray:
    """Keep so many rows as are enough to choose by, in order."""
    if rows.size <= CHOOSE_ROWS:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(rows.size, CHOOSE_ROWS, replace=False))]
