"""EASE: the linear autoencoder without self-weights, in closed form from the Gram matrix of users' items.

B = 1 − P / diag(P), P = (G + λ)⁻¹, G = XᵀX: the best prediction of each item from a user's others, with
weights held down by λ. G is inverted in its own memory: one dense matrix [I, I] and no second one, 4 bytes a
cell in float32 (20,000 items: 1.6 GB), 8 in float64. Source: Steck, WWW 2019.

Shapes: I items, K neighbours.
"""

from typing import Any, Literal

import numpy as np

from recsys.errors import ConfigError
from recsys.item_item.neighbours import MOST_NEIGHBOURS, ItemItem, cut_dense

MOST_ITEMS = 20_000
"""Of a catalogue that EASE is for; the time grows with the cube."""
_ROWS_AT_ONCE = 512


def build_ease(
    gram: Any,
    penalty: float,
    *,
    most: int = MOST_NEIGHBOURS,
    precision: Literal["float32", "float64"] = "float32",
) -> ItemItem:
    """Fit, and keep each item's strongest weights.

    Args: gram: sparse [I, I], such as `count_pairs` gives; most: neighbours that are kept of an item.
    Raises: ConfigError when the catalogue is too large, or the penalty does not make G + λ invertible.
    """
    if gram.shape[0] > MOST_ITEMS:
        raise ConfigError(
            f"EASE of {gram.shape[0]} items: it is for at most {MOST_ITEMS}; use `build_item_knn`"
        )
    weights = ease_weights(gram, penalty, precision)
    parts = [cut_dense(weights[i : i + _ROWS_AT_ONCE], most) for i in range(0, gram.shape[0], _ROWS_AT_ONCE)]
    if not parts:
        return ItemItem(neighbours=np.zeros((0, 0), np.int32), weights=np.zeros((0, 0), np.float32))
    return ItemItem(
        neighbours=np.concatenate([part[0] for part in parts]),
        weights=np.concatenate([part[1] for part in parts]),
    )


def ease_weights(
    gram: Any, penalty: float, precision: Literal["float32", "float64"] = "float32"
) -> np.ndarray:
    """Give all weights B [I, I]: B[i, j] is what item i in a history says for item j; 0 on the diagonal.

    Raises: ConfigError when the penalty does not make G + λ invertible.
    """
    from scipy.linalg import lapack

    factor, invert = {
        "float32": (lapack.spotrf, lapack.spotri),
        "float64": (lapack.dpotrf, lapack.dpotri),
    }[precision]
    num_items = gram.shape[0]
    if not num_items:
        return np.zeros((0, 0), precision)
    # In LAPACK's order of columns, so that it works in place.
    dense = gram.astype(precision).toarray(order="F")
    dense[np.diag_indices(num_items)] += penalty
    dense, failed = factor(dense, lower=1, overwrite_a=1, clean=0)
    if failed:
        raise ConfigError(f"EASE with penalty {penalty:g}: the matrix has no inverse; take a larger penalty")
    dense, _ = invert(dense, lower=1, overwrite_c=1)
    # Its transpose is in the order of rows and holds the upper half.
    inverse: np.ndarray = dense.T
    _mirror(inverse)
    diagonal = inverse.diagonal().copy()
    inverse /= -diagonal
    inverse[np.diag_indices(num_items)] = 0.0
    return inverse


def _mirror(upper: np.ndarray) -> None:
    """Copy the upper half onto the lower one, in blocks."""
    num = upper.shape[0]
    for start in range(0, num, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, num)
        square = upper[start:stop, start:stop]
        square[:] = np.triu(square) + np.triu(square, 1).T
        upper[stop:, start:stop] = upper[start:stop, stop:].T
