"""LightGBM with settings drawn from one frozen space and chosen on validation rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from benchmarks.quality.quality_set import Run
from training.baselines.boosted_trees import TreeRows, Trees, grow, grow_again

LIGHTGBM = "lightgbm"
"""The name of the row, in every set that has one."""
SPACE: dict[str, tuple[float, ...]] = {
    "learning_rate": (0.05, 0.1),
    "num_leaves": (15, 31, 63),
    "min_data_in_leaf": (20, 50, 200),
    "feature_fraction": (0.4, 0.6, 0.8),
    "lambda_l2": (0.0, 1.0, 5.0),
    "cat_smooth": (10.0, 20.0, 50.0),
}
"""Frozen: changing it changes what every earlier table compared with."""
PATIENCE = 40


def tuned_trees(
    train: TreeRows,
    validation: TreeRows,
    *,
    binary: bool,
    categories: Sequence[int],
    trials: int,
    evaluate: Callable[[Trees], float] | None = None,
) -> Trees:
    """Fit `trials` drawn settings, each stopped early by the validation metric, and keep the best one.

    Args: categories: columns whose values are codes; -1 is none. binary: AUC of a probability, else RMSE.
    evaluate: gives the figure that the best setting has most of; default: the metric that stops it.
    Raises: ConfigError when LightGBM is not installed.
    """
    objective, metric, sign = ("binary", "auc", 1) if binary else ("regression", "rmse", -1)
    fixed = {"objective": objective, "metric": metric, "seed": 0, "feature_pre_filter": False}
    tried = [
        grow(train, validation, fixed | settings, categories=categories, patience=PATIENCE)
        for settings in drawn(trials)
    ]
    return max(tried, key=evaluate or (lambda trees: sign * trees.scores[metric]))


def trees_of_heads(
    heads: Mapping[str, bool],
    features: Mapping[str, np.ndarray],
    labels: Mapping[str, Mapping[str, np.ndarray]],
    categories: Sequence[int],
    trials: int,
) -> Run:
    """Fit a model a head, choose it on validation, and fit what was chosen again on all but the test.

    Args: heads: head -> whether it is binary; features: of "train", "validation", "before" (both, for the
    second fit) and "test" [N, F]; labels: of these but the test, per head [N].
    """
    validation, test, counts = {}, {}, []
    for head, binary in heads.items():
        part = {p: TreeRows(features=features[p], label=of[head]) for p, of in labels.items()}
        chosen = tuned_trees(
            part["train"], part["validation"], binary=binary, categories=categories, trials=trials
        )
        validation[head] = chosen.predict(features["validation"])
        test[head] = grow_again(chosen, part["before"]).predict(features["test"])
        counts.append(chosen.count)
    return Run(validation=validation, test=test, note=f"{trials} trials a head, {counts} trees")


def drawn(trials: int) -> Iterator[dict[str, float]]:
    """Draw settings from the space: the same ones in every run, the first ones of any larger number."""
    rng = np.random.default_rng(0)
    for _ in range(trials):
        yield {name: rng.choice(values).item() for name, values in SPACE.items()}
