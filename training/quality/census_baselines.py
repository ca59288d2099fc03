"""Baselines of the census table: gradient-boosted trees and a logistic regression, one model per head.

The trees' settings are drawn from a frozen space; they and the number of trees are chosen on validation. The
chosen setting is then fitted on all rows of the training file, as our own models are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from recsys.errors import ConfigError
from recsys.metrics.pointwise import auc
from training.quality.census_reader import CATEGORIES, LABELS, NUMBERS, TabularRows

SPACE: dict[str, tuple[float, ...]] = {
    "learning_rate": (0.05, 0.1),
    "num_leaves": (15, 31, 63),
    "min_data_in_leaf": (20, 50, 200),
    "feature_fraction": (0.4, 0.6, 0.8),
    "lambda_l2": (0.0, 1.0, 5.0),
    "cat_smooth": (10.0, 20.0, 50.0),
}
"""Frozen: changing it changes what every earlier table compared with."""
TRIALS = 3
MAX_TREES = 600
PATIENCE = 40
FIXED: dict[str, object] = {
    "objective": "binary",
    "metric": "auc",
    "num_threads": 1,
    "seed": 0,
    "verbosity": -1,
    "feature_pre_filter": False,
}
PENALTIES = (10.0, 1.0)
MAX_ITERATIONS = 100

Predictions = tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]
"""Validation and test predictions per task, and a note."""


def fit_trees(rows: Mapping[str, TabularRows]) -> Predictions:
    """Fit LightGBM per head: the best of `TRIALS` drawn settings.

    Raises: ConfigError when LightGBM is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise ConfigError(
            "this set needs lightgbm; install it with `pip install 'recsys-mtl[bench]'`"
        ) from error
    known = pl.concat([rows[part].frame for part in ("train", "validation")])
    matrix = {part: _tree_matrix(found.frame, known) for part, found in rows.items()}
    columns = list(range(len(NUMBERS), len(NUMBERS) + len(CATEGORIES)))
    found: dict[str, dict[str, np.ndarray]] = {"validation": {}, "test": {}}
    trees = []
    for label in LABELS:
        data = {
            part: lightgbm.Dataset(
                matrix[part], rows[part].labels[label], categorical_feature=columns, free_raw_data=False
            )
            for part in ("train", "validation")
        }
        tried = [(settings, _grow(lightgbm, data, settings)) for settings in _drawn()]
        settings, best = max(tried, key=lambda one: one[1].best_score["valid_0"]["auc"])
        trees.append(best.best_iteration)
        found["validation"][label] = best.predict(matrix["validation"])
        everything = lightgbm.Dataset(
            np.concatenate([matrix["train"], matrix["validation"]]),
            np.concatenate([rows["train"].labels[label], rows["validation"].labels[label]]),
            categorical_feature=columns,
        )
        final = lightgbm.train(FIXED | settings, everything, best.best_iteration)
        found["test"][label] = np.asarray(final.predict(matrix["test"]))
    return found["validation"], found["test"], f"{TRIALS} trials a head, {trees} trees"


def fit_linear(rows: Mapping[str, TabularRows]) -> Predictions:
    """Fit a logistic regression per head on one-hot ids and numbers; its penalty is chosen on validation."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    matrix = {part: _one_hot(part_rows) for part, part_rows in rows.items()}
    found: dict[str, dict[str, np.ndarray]] = {"validation": {}, "test": {}}
    everything = sparse.vstack([matrix["train"], matrix["validation"]], format="csr")

    def labels(name: str) -> np.ndarray:
        return np.concatenate([rows[part].labels[name] for part in ("train", "validation")])

    chosen = []
    for label in LABELS:
        models = {
            penalty: LogisticRegression(C=1 / penalty, max_iter=MAX_ITERATIONS).fit(
                matrix["train"], rows["train"].labels[label]
            )
            for penalty in PENALTIES
        }
        truth = rows["validation"].labels[label]
        score = {p: auc(truth, m.decision_function(matrix["validation"])) for p, m in models.items()}
        chosen.append(max(score, key=lambda p: score[p]))
        found["validation"][label] = models[chosen[-1]].decision_function(matrix["validation"])
        final = LogisticRegression(C=1 / chosen[-1], max_iter=MAX_ITERATIONS).fit(everything, labels(label))
        found["test"][label] = final.decision_function(matrix["test"])
    return found["validation"], found["test"], f"penalty {chosen}"


def _grow(lightgbm: Any, data: Mapping[str, Any], settings: Mapping[str, float]) -> Any:
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    return lightgbm.train(
        FIXED | dict(settings),
        data["train"],
        MAX_TREES,
        valid_sets=[data["validation"]],
        callbacks=[stop],
    )


def _drawn() -> list[dict[str, float]]:
    """Draw the trials: the same ones in every run."""
    rng = np.random.default_rng(0)
    return [{name: rng.choice(values).item() for name, values in SPACE.items()} for _ in range(TRIALS)]


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
