"""Simple systems for sets that are logs: tuned trees, a linear model, each item's own rate; one a head."""

import numpy as np

from benchmarks.quality.baselines.trees import TreeRows, tuned_trees
from benchmarks.quality.nights.night_set import FitBaseline, FittedBaseline, NightSet
from recsys.tasks import TaskSpec
from training.baselines.design import Design, design_of
from training.baselines.fitted import fit_linear
from training.data import EncodedRows

TRIALS = 6
MAX_CATEGORIES = 1_000
"""A tree cannot use the ids of users and items."""
PRIOR_ROWS = 20.0
"""An item's rate is held back by so many rows of the average item."""


def fit_trees(task: TaskSpec, night: NightSet, known: EncodedRows) -> FittedBaseline:
    """Fit LightGBM on the model's flat features; the setting and number of trees are chosen on validation.

    It has no history, and no ids of more than `MAX_CATEGORIES` values: those of users and items.

    Raises: ConfigError when LightGBM is not installed.
    """
    sample = night.sample(task)
    small = np.array([size <= MAX_CATEGORIES for size in sample.design.sizes])

    def flat(design: Design) -> np.ndarray:
        return np.concatenate([design.numbers, design.ids[:, small].astype(np.float32)], axis=1)

    rows = np.flatnonzero(~np.isnan(known.labels[task.name]))
    num = sample.design.numbers.shape[1]
    trees = tuned_trees(
        TreeRows(features=flat(sample.design), label=sample.label, weight=sample.weight),
        TreeRows(
            features=flat(design_of(known, night.encoder, rows)),
            label=known.labels[task.name][rows],
            weight=known.weight[rows],
        ),
        binary=task.is_binary,
        categories=range(num, num + int(small.sum())),
        trials=TRIALS,
    )
    return FittedBaseline(
        predict=lambda encoded, rows: trees.predict(flat(design_of(encoded, night.encoder, rows))),
        note=f"{TRIALS} trials, {trees.count} trees",
    )


def fit_line(task: TaskSpec, night: NightSet, known: EncodedRows) -> FittedBaseline:
    """Fit a logistic or ridge regression; the penalty is chosen on the last training day."""
    del known
    fitted = fit_linear(task, night.sample(task), 0)
    return FittedBaseline(
        predict=lambda encoded, rows: fitted.predict(design_of(encoded, night.encoder, rows)),
        note=fitted.note,
    )


def fit_item_rate(task: TaskSpec, night: NightSet, known: EncodedRows) -> FittedBaseline:
    """Predict each item's mean label over the training days, held back towards the mean of all."""
    del known
    first, last = night.runs.plan.train[task.name]
    size = night.encoder.state.vocabularies["item_id"].size
    total, count = np.zeros(size), np.zeros(size)
    for encoded in (s for i in range(first, last + 1) for s in night.runs.prepared.encoded[i]):
        rows = np.flatnonzero(~np.isnan(encoded.labels[task.name]))
        items = _items(encoded, rows)
        total += np.bincount(items, encoded.labels[task.name][rows] * encoded.weight[rows], size)
        count += np.bincount(items, encoded.weight[rows], size)
    mean = total.sum() / max(count.sum(), 1e-9)
    rate = (total + PRIOR_ROWS * mean) / (count + PRIOR_ROWS)
    return FittedBaseline(predict=lambda encoded, rows: rate[_items(encoded, rows)])


def _items(encoded: EncodedRows, rows: np.ndarray) -> np.ndarray:
    items: np.ndarray = encoded.items.ids[encoded.item_row[rows], 0]
    return items


NIGHT_BASELINES: dict[str, FitBaseline] = {
    "lightgbm": fit_trees,
    "linear": fit_line,
    "item_rate": fit_item_rate,
}
