"""Baselines of the census table: gradient-boosted trees and a logistic regression, one model per head.

The trees' settings are drawn from a frozen space; they and the number of trees are chosen on validation. The
chosen setting is then fitted on all rows of the training file, as our own models are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from benchmarks.quality.baselines.trees import TreeRows, grown_again, tuned_trees
from benchmarks.quality.census.reader import CATEGORIES, LABELS, NUMBERS, TabularRows
from recsys.metrics.pointwise import auc

TRIALS = 3
PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1)
MAX_ITERATIONS = 1000

Predictions = tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]
"""Validation and test predictions per task, and a note."""


def fit_trees(rows: Mapping[str, TabularRows]) -> Predictions:
    """Fit LightGBM per head: the best of `TRIALS` drawn settings, then on all rows of the training file.

    Raises: ConfigError when LightGBM is not installed.
    """
    known = pl.concat([rows[part].frame for part in ("train", "validation")])
    matrix = {part: _tree_matrix(found.frame, known) for part, found in rows.items()}
    categories = range(len(NUMBERS), len(NUMBERS) + len(CATEGORIES))
    found: dict[str, dict[str, np.ndarray]] = {"validation": {}, "test": {}}
    counts = []
    for label in LABELS:
        part = {n: TreeRows(features=matrix[n], label=rows[n].labels[label]) for n in ("train", "validation")}
        trees = tuned_trees(
            part["train"], part["validation"], binary=True, categories=categories, trials=TRIALS
        )
        counts.append(trees.count)
        found["validation"][label] = trees.predict(matrix["validation"])
        everything = TreeRows(
            features=np.concatenate([p.features for p in part.values()]),
            label=np.concatenate([p.label for p in part.values()]),
        )
        final = grown_again(trees, everything, binary=True, categories=categories)
        found["test"][label] = final.predict(matrix["test"])
    return found["validation"], found["test"], f"{TRIALS} trials a head, {counts} trees"


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
