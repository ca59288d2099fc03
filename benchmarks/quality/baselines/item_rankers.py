"""What ranks without a network: popularity, item-kNN, EASE; each scores the whole catalogue for every user.

Shapes: U users, I items; a matrix has 1 where a user has an item.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from benchmarks.quality.catalogue_lists import Lists, Wanted, list_outputs, mean_ndcg, positives
from benchmarks.quality.models.pair_data import Split
from benchmarks.quality.quality_set import Row, Run, baseline
from recsys.item_item.ease import ease_weights
from recsys.item_item.pair_counts import gram_of
from training.baselines.item_item import ItemItemScores, build_knn

MatrixScorer = Callable[[np.ndarray], np.ndarray]
"""Matrix [U, I] -> scores [U, I]."""


def popularity(matrix: np.ndarray) -> np.ndarray:
    """Score an item by how many users have it."""
    return np.broadcast_to(matrix.sum(axis=0), matrix.shape)


def item_knn(matrix: np.ndarray) -> np.ndarray:
    """Score an item by its shrunk cosines to the user's own, set as in `training.baselines`."""
    user, item = matrix.nonzero()
    knn = ItemItemScores(pl.DataFrame({"user_id": user, "item_id": item}), build_knn)
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
    """Score by the weights of a catalogue's EASE, all of them."""
    from scipy import sparse

    weights = ease_weights(gram_of(sparse.csr_array(matrix)), penalty, "float64")
    found: np.ndarray = matrix @ weights.astype(np.float32)
    return found


BASELINES: Mapping[str, Mapping[str, MatrixScorer]] = {
    "popularity": {"": popularity},
    "item_knn": {"": item_knn},
    "ease": {f"penalty {penalty:g}": ease(penalty) for penalty in (30.0, 100.0, 300.0, 1000.0)},
}
"""Baseline -> setting -> scorer; the setting is chosen on validation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A baseline with its signal and setting chosen."""

    scores: np.ndarray
    """[U, I], of what was known when it was chosen."""
    again: np.ndarray
    """The same of what it was fitted again on; else `scores`."""
    note: str


def best_ranker(
    name: str,
    signals: Mapping[str, np.ndarray],
    worth: Callable[[np.ndarray], float],
    again: Mapping[str, np.ndarray] | None = None,
) -> Ranked:
    """Fit a baseline's variants on each signal and keep the scores that validation likes best.

    Args: signals: name -> 0/1 matrix [U, I] of training pairs that may be counted; worth: of scores [U, I],
    higher is better; again: what the chosen variant is fitted on once more, by the signals' names.
    """
    best, chosen = -math.inf, ("", "")
    for signal, matrix in signals.items():
        for setting, fit in BASELINES[name].items():
            found = fit(matrix)
            if (value := worth(found)) > best:
                best, chosen, scores = value, (signal, setting), found
    signal, setting = chosen
    return Ranked(
        scores=scores,
        again=scores if again is None else BASELINES[name][setting](again[signal]),
        note=", ".join(part for part in (f"of {signal}" if signal else "", setting) if part),
    )


def ranker_rows(split: Split, lists: Lists) -> dict[str, Row]:
    """Give a row per baseline, which ranks each head's items."""
    return {name: baseline(partial(_run, split, name, lists)) for name in BASELINES}


def _run(split: Split, name: str, lists: Lists) -> Run:
    """Choose, per head, whether all training pairs or the head's own positive ones are counted."""
    outputs: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
    notes = []
    for head, (known, test) in lists.items():
        own = split.train.take(split.train.labels[head] > 0)
        pairs = {"all pairs": split.train, head: own} if own.size < split.train.size else {"": split.train}
        signals = {signal: positives(of, split.sides.shape).toarray() for signal, of in pairs.items()}
        ranked = best_ranker(name, signals, partial(_ndcg, known))
        for found, of in zip(outputs, (known, test), strict=True):
            found |= list_outputs(head, ranked.scores.__getitem__, of)
        notes.append(f"{head}: {ranked.note}")
    return Run(validation=outputs[0], test=outputs[1], note="; ".join(notes))


def _ndcg(of: Wanted, scores: np.ndarray) -> float:
    return mean_ndcg(scores.__getitem__, of)
