"""What ranks without a network: popularity, item-kNN, EASE; each scores the whole catalogue for every user.

Shapes: U users, I items; a matrix has 1 where a user has an item.
"""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from training.baselines.knn import ItemKnn

MatrixScorer = Callable[[np.ndarray], np.ndarray]
"""Matrix [U, I] -> scores [U, I]."""


def popularity(matrix: np.ndarray) -> np.ndarray:
    """Score an item by how many users have it."""
    return np.broadcast_to(matrix.sum(axis=0), matrix.shape)


def item_knn(matrix: np.ndarray) -> np.ndarray:
    """Score an item by its shrunk cosines to the user's own; `training.baselines.knn` has the settings."""
    user, item = matrix.nonzero()
    knn = ItemKnn(pl.DataFrame({"user_id": user, "item_id": item}))
    return knn.of_lists(*(pl.Series(np.arange(num)) for num in matrix.shape))


def ease(penalty: float) -> MatrixScorer:
    """Score by the closed-form item-item weights without self-weights, X B with B = 1 - P / diag(P).

    P = (XᵀX + λ)⁻¹ is never made: X P = (XXᵀ + λ)⁻¹ X and diag(P) = (1 - diag(Xᵀ(XXᵀ + λ)⁻¹X)) / λ need a
    system of the size of the users only, who are fewer than the items wherever the matrix is wide.
    Source: Steck, WWW 2019.
    """

    def scores(matrix: np.ndarray) -> np.ndarray:
        if matrix.shape[0] > matrix.shape[1]:
            return _by_items(matrix, penalty)
        gram = (matrix @ matrix.T).astype(np.float64)
        gram[np.diag_indices_from(gram)] += penalty
        solved = np.linalg.solve(gram, matrix)
        diagonal = (1 - (matrix * solved).sum(axis=0)) / penalty
        found: np.ndarray = (matrix - solved / diagonal).astype(np.float32)
        return found

    return scores


def _by_items(matrix: np.ndarray, penalty: float) -> np.ndarray:
    """Score by EASE with the inverse of the items' size."""
    gram = (matrix.T @ matrix).astype(np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    found: np.ndarray = matrix @ weights.astype(np.float32)
    return found


BASELINES: Mapping[str, Mapping[str, MatrixScorer]] = {
    "popularity": {"": popularity},
    "item_knn": {"": item_knn},
    "ease": {f"penalty {penalty:g}": ease(penalty) for penalty in (100.0, 300.0, 1000.0)},
}
"""Baseline -> setting -> scorer; the setting is chosen on validation."""


def best_variant(
    name: str, matrix: np.ndarray, worth: Callable[[np.ndarray], float]
) -> tuple[str, np.ndarray]:
    """Fit a baseline's variants and keep the setting, and its scores [U, I], that validation likes best.

    Args: worth: of scores [U, I], higher is better.
    """
    best: tuple[float, str, np.ndarray] | None = None
    for setting, fit in BASELINES[name].items():
        scores = fit(matrix)
        value = worth(scores)
        if best is None or value > best[0]:
            best = value, setting, scores
    assert best is not None, "a baseline has a variant"
    return best[1], best[2]
