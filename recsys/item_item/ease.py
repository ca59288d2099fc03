"""EASE: the linear autoencoder without self-weights, in closed form from the Gram matrix of users' items.

B = 1 − P / diag(P), P = (G + λ)⁻¹, G = XᵀX: the best prediction of each item from a user's others, with
weights held down by λ. G is inverted in its own memory: one dense matrix [I, I] and no second one, 4 bytes a
cell in float32 (22,000 items: 1.9 GB), 8 in float64. Source: Steck, WWW 2019.

Shapes: I items, K neighbours.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from recsys.errors import ConfigError
from recsys.item_item.neighbours import MOST_NEIGHBOURS, ItemItem, cut_dense

MOST_ITEMS = 22_000
"""Of a catalogue that EASE is for; the time grows with the cube."""
_ROWS_AT_ONCE = 512
Precision = Literal["float32", "float64"]


def build_ease(
    gram: Any,
    penalty: float,
    *,
    difference: Any = None,
    factors: Any = None,
    most: int = MOST_NEIGHBOURS,
    positive: bool = False,
    precision: Precision = "float32",
) -> ItemItem:
    """Fit, and keep each item's strongest weights.

    Args: gram: sparse [I, I], such as `count_pairs` gives; difference: sparse [I, I], `gram` less the
    products of inputs with what they are to predict, where that is not the inputs, see `next_item`;
    factors: sparse [I, A], whose products among each other count as so many more users' items;
    most: neighbours that are kept of an item; positive: keep no weight below 0, see `_kept`.
    Raises: ConfigError when the catalogue is too large, or the penalty does not make G + λ invertible.
    """
    if gram.shape[0] > MOST_ITEMS:
        raise ConfigError(
            f"EASE of {gram.shape[0]} items: it is for at most {MOST_ITEMS}; use `build_item_knn`"
        )
    inverse = _inverse(gram, penalty, factors, precision)
    blocks = _directed(inverse, difference) if difference is not None else _plain(inverse)
    parts = [_kept(block, most, positive) for block in blocks]
    if not parts:
        return ItemItem(neighbours=np.zeros((0, 0), np.int32), weights=np.zeros((0, 0), np.float32))
    return ItemItem(
        neighbours=np.concatenate([part[0] for part in parts]),
        weights=np.concatenate([part[1] for part in parts]),
    )


def build_ease_of_users(
    matrix: Any, penalty: float, *, most: int = MOST_NEIGHBOURS, positive: bool = False
) -> ItemItem:
    """Fit the same as `build_ease` of plain pair counts by a system of the users, who may be far fewer.

    P = (1 - Xᵀ M X) / λ with M = (X Xᵀ + λ)⁻¹: so one dense matrix [U, U], in float64, and a block of B.
    Args: matrix: sparse [U, I], 1 where a user has an item; most, positive: as there.
    Raises: ConfigError when the penalty does not make X Xᵀ + λ invertible.
    """
    users = _inverse(matrix @ matrix.T, penalty, None, "float64")
    by_item = matrix.T.tocsr().astype(np.float64)
    own = np.concatenate(
        [
            np.asarray(by_item[start : start + _ROWS_AT_ONCE].multiply(block).sum(axis=1)).ravel()
            for start, block in _times(by_item, users)
        ]
    )
    scale, parts = 1 / (1 - own), []
    for start, block in _times(by_item, users):
        weights = (by_item @ block.T).T * scale
        np.fill_diagonal(weights[:, start:], 0.0)
        parts.append(_kept(weights, most, positive))
    return ItemItem(
        neighbours=np.concatenate([part[0] for part in parts]),
        weights=np.concatenate([part[1] for part in parts]),
    )


def _kept(block: np.ndarray, most: int, positive: bool) -> tuple[np.ndarray, np.ndarray]:
    """Cut a block of weights [B, I].

    A weight that is cut counts as 0, which is more than any weight below 0 that stays. Where most of those
    are cut, as in a large catalogue, the few that stay push their items behind items that are no better.
    """
    return cut_dense(np.maximum(block, 0) if positive else block, most)


def _times(by_item: Any, users: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Give Xᵀ M in blocks of items: (start, dense [B, U])."""
    for start in range(0, by_item.shape[0], _ROWS_AT_ONCE):
        yield start, by_item[start : start + _ROWS_AT_ONCE] @ users


def ease_weights(gram: Any, penalty: float, precision: Precision = "float32") -> np.ndarray:
    """Give all weights B [I, I]: B[i, j] is what item i in a history says for item j; 0 on the diagonal.

    Raises: ConfigError when the penalty does not make G + λ invertible.
    """
    inverse = _inverse(gram, penalty, None, precision)
    for start, block in zip(range(0, inverse.shape[0], _ROWS_AT_ONCE), _plain(inverse), strict=True):
        inverse[start : start + _ROWS_AT_ONCE] = block
    return inverse


def _plain(inverse: np.ndarray) -> Iterator[np.ndarray]:
    """Give B = 1 − P / diag(P) in blocks of rows."""
    scale = -1 / inverse.diagonal()
    for start in range(0, inverse.shape[0], _ROWS_AT_ONCE):
        block = inverse[start : start + _ROWS_AT_ONCE] * scale
        np.fill_diagonal(block[:, start:], 0.0)
        yield block


def _directed(inverse: np.ndarray, difference: Any) -> Iterator[np.ndarray]:
    """Give B = 1 − P (G − XᵀY) − P (1 − d) / diag(P) in blocks of rows; d is the diagonal of P (G − XᵀY).

    It is P (XᵀY − diag μ) with the μ that makes its diagonal 0: XᵀY = G − difference, and P G = 1 − λ P.
    """
    apart = difference.tocoo()
    products = inverse[apart.col, apart.row] * apart.data
    own = np.bincount(apart.col, products, inverse.shape[0])
    scale = ((1 - own) / inverse.diagonal()).astype(inverse.dtype)
    turned = difference.T.tocsr().astype(inverse.dtype)
    for start in range(0, inverse.shape[0], _ROWS_AT_ONCE):
        # P is symmetric: its columns are its rows.
        columns = np.ascontiguousarray(inverse[:, start : start + _ROWS_AT_ONCE])
        block = -(turned @ columns).T - columns.T * scale
        np.fill_diagonal(block[:, start:], 0.0)
        yield block


def _inverse(gram: Any, penalty: float, factors: Any, precision: Precision) -> np.ndarray:
    """Give (G + F Fᵀ + λ)⁻¹ [I, I]."""
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
    if factors is not None:
        for start in range(0, num_items, _ROWS_AT_ONCE):
            dense[:, start : start + _ROWS_AT_ONCE] += (
                factors @ factors[start : start + _ROWS_AT_ONCE].T
            ).toarray()
    dense[np.diag_indices(num_items)] += penalty
    dense, failed = factor(dense, lower=1, overwrite_a=1, clean=0)
    if failed:
        raise ConfigError(f"EASE with penalty {penalty:g}: the matrix has no inverse; take a larger penalty")
    dense, _ = invert(dense, lower=1, overwrite_c=1)
    # Its transpose is in the order of rows and holds the upper half.
    inverse: np.ndarray = dense.T
    _mirror(inverse)
    return inverse


def _mirror(upper: np.ndarray) -> None:
    """Copy the upper half onto the lower one, in blocks."""
    num = upper.shape[0]
    for start in range(0, num, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, num)
        square = upper[start:stop, start:stop]
        square[:] = np.triu(square) + np.triu(square, 1).T
        upper[stop:, start:stop] = upper[start:stop, stop:].T
