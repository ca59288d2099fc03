"""Gradient-boosted trees as a baseline: settings drawn from one frozen space, chosen on validation rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.quality.quality_set import Run
from recsys.errors import ConfigError

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
MAX_TREES = 600
PATIENCE = 40
_FIXED: dict[str, object] = {
    "num_threads": 1,
    "deterministic": True,
    "seed": 0,
    "verbosity": -1,
    "feature_pre_filter": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRows:
    """Rows [N] for trees: features [N, F], labels and weights [N]."""

    features: np.ndarray
    label: np.ndarray
    weight: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """A fitted model and what was chosen for it."""

    model: Any
    settings: dict[str, float]
    count: int

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Give probabilities, or values, [N]."""
        return np.asarray(self.model.predict(features, num_iteration=self.count))


def tuned_trees(
    train: TreeRows, validation: TreeRows, *, binary: bool, categories: Sequence[int], trials: int
) -> Trees:
    """Fit LightGBM: of `trials` drawn settings, each stopped early, the one with the best validation metric.

    Args: categories: columns whose values are codes; -1 is none. binary: AUC of a probability, else RMSE.
    Raises: ConfigError when LightGBM is not installed.
    """
    lightgbm = require_lightgbm()
    kind = (
        {"objective": "binary", "metric": "auc"} if binary else {"objective": "regression", "metric": "rmse"}
    )
    data = [_dataset(lightgbm, rows, categories) for rows in (train, validation)]
    best: Trees | None = None
    found = 0.0
    for settings in drawn(trials):
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        model = lightgbm.train(
            _FIXED | kind | settings, data[0], MAX_TREES, valid_sets=[data[1]], callbacks=[stop]
        )
        value = model.best_score["valid_0"][kind["metric"]] * (1 if binary else -1)
        if best is None or value > found:
            best, found = Trees(model=model, settings=settings, count=max(1, model.best_iteration)), value
    assert best is not None, "trials >= 1"
    return best


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
    outputs: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
    counts = []
    for head, binary in heads.items():
        part = {p: TreeRows(features=features[p], label=of[head]) for p, of in labels.items()}
        chosen = tuned_trees(
            part["train"], part["validation"], binary=binary, categories=categories, trials=trials
        )
        outputs[0][head] = chosen.predict(features["validation"])
        again = _again(chosen, part["before"], binary=binary, categories=categories)
        outputs[1][head] = again.predict(features["test"])
        counts.append(chosen.count)
    return Run(validation=outputs[0], test=outputs[1], note=f"{trials} trials a head, {counts} trees")


def _again(trees: Trees, rows: TreeRows, *, binary: bool, categories: Sequence[int]) -> Trees:
    """Fit the chosen settings and number of trees on other rows."""
    lightgbm = require_lightgbm()
    kind = {"objective": "binary" if binary else "regression"}
    model = lightgbm.train(_FIXED | kind | trees.settings, _dataset(lightgbm, rows, categories), trees.count)
    return Trees(model=model, settings=trees.settings, count=trees.count)


def drawn(trials: int) -> Iterator[dict[str, float]]:
    """Draw settings from the space: the same ones in every run, the first ones of any larger number."""
    rng = np.random.default_rng(0)
    for _ in range(trials):
        yield {name: rng.choice(values).item() for name, values in SPACE.items()}


def _dataset(lightgbm: Any, rows: TreeRows, categories: Sequence[int]) -> Any:
    return lightgbm.Dataset(
        rows.features,
        rows.label,
        weight=rows.weight,
        categorical_feature=list(categories),
        free_raw_data=False,
    )


def require_lightgbm() -> Any:
    """Import LightGBM.

    Raises: ConfigError when it is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise ConfigError(
            "this set needs lightgbm; install it with `pip install 'recsys-mtl[bench]'`"
        ) from error
    return lightgbm
