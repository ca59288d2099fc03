"""Simple systems for sets that are logs: tuned trees, a linear model, each item's own rate; one a head."""

import numpy as np

from benchmarks.quality.baselines.tuned_trees import tuned_trees
from benchmarks.quality.sets.night import FitBaseline, FittedBaseline, LabelledRows, Night
from recsys.tasks import TaskSpec
from training.baselines.boosted_trees import TreeColumns, TreeRows, Trees
from training.baselines.design import design_of
from training.baselines.fitted import fit_linear

TRIALS = 6
PRIOR_ROWS = 20.0
"""An item's rate is held back by so many rows of the average item."""


def fit_trees(task: TaskSpec, night: Night, known: LabelledRows) -> FittedBaseline:
    """Fit LightGBM on the model's flat features; the setting and number of trees are chosen on validation.

    The setting by the head's primary metric, inside lists with the state held; the number of trees by AUC of
    all rows, or RMSE. It has no history, and no ids of many values: those of users and items.

    Raises: ConfigError when LightGBM is not installed.
    """
    sample = night.sample(task)
    columns = TreeColumns.of(sample.design)

    def features(rows: LabelledRows) -> np.ndarray:
        return columns.features(design_of(rows.encoded, night.encoder, rows.rows))

    def evaluate(trees: Trees) -> float:
        measure = known.measure(task.kind.metric)
        value = measure.value(known.outputs(lambda rows: trees.predict(features(rows))))
        return value if measure.higher_is_better else -value

    trees = tuned_trees(
        TreeRows(features=columns.features(sample.design), label=sample.label, weight=sample.weight),
        TreeRows(features=features(known), label=known.label, weight=known.weight),
        binary=task.kind.probability,
        categories=columns.categories,
        trials=TRIALS,
        evaluate=evaluate,
    )
    return FittedBaseline(
        predict=lambda rows: trees.predict(features(rows)), note=f"{TRIALS} trials, {trees.count} trees"
    )


def fit_line(task: TaskSpec, night: Night, known: LabelledRows) -> FittedBaseline:
    """Fit a logistic or ridge regression; the penalty is chosen on the last training day."""
    del known
    fitted = fit_linear(task, night.sample(task), 0)
    return FittedBaseline(
        predict=lambda rows: fitted.predict(design_of(rows.encoded, night.encoder, rows.rows)),
        note=fitted.note,
    )


def fit_item_rate(task: TaskSpec, night: Night, known: LabelledRows) -> FittedBaseline:
    """Predict each item's mean label over the training days, held back towards the mean of all."""
    del known
    first, last = night.runs.plan.train[task.name]
    size = night.encoder.state.vocabularies["item_id"].size
    total, count = np.zeros(size), np.zeros(size)
    for i in range(first, last + 1):
        rows = LabelledRows(task, night.runs.prepared.encoded[i])
        total += np.bincount(_items(rows), rows.label * rows.weight, size)
        count += np.bincount(_items(rows), rows.weight, size)
    mean = total.sum() / max(count.sum(), 1e-9)
    rate = (total + PRIOR_ROWS * mean) / (count + PRIOR_ROWS)
    return FittedBaseline(predict=lambda rows: rate[_items(rows)])


def _items(rows: LabelledRows) -> np.ndarray:
    items: np.ndarray = rows.encoded.items.ids[rows.encoded.item_row[rows.rows], 0]
    return items


NIGHT_BASELINES: dict[str, FitBaseline] = {
    "lightgbm": fit_trees,
    "linear": fit_line,
    "item_rate": fit_item_rate,
}
