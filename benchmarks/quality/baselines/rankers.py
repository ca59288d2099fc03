"""Simple rankers of a whole catalogue, their signals and settings chosen on validation lists.

Shapes: U users, I items.
"""

from collections.abc import Mapping

import numpy as np

from benchmarks.quality.baselines.lists import best_variant
from benchmarks.quality.full_lists import (
    ListsOfHeads,
    Parts,
    Scorer,
    Wanted,
    list_figures,
    list_metrics,
    positives,
)
from benchmarks.quality.report import ModelRow


def ranker_row(parts: Parts, name: str) -> tuple[ModelRow, ListsOfHeads]:
    """Rank each head's items by a simple ranker of all training pairs or of the head's own positive ones.

    Returns: the row and, per head, its metrics of the test lists [U].
    """
    heads, notes, test = {}, [], {}
    for head, known in parts.known_lists.items():
        signals = {"all pairs": parts.train, head: parts.train.take(parts.train.labels[head] > 0)}
        if signals[head].size == parts.train.size:
            del signals[head]
        matrices = {s: positives(p, parts.sides.shape).toarray() for s, p in signals.items()}
        scorer, note = best_ranker(name, matrices, known)
        test[head] = list_metrics(scorer, parts.lists[head])
        heads[head] = list_figures([list_metrics(scorer, known)], [test[head]])
        notes.append(f"{head}: {note}")
    return ModelRow(name=name, heads=heads, seeds=1, note="; ".join(notes), ours=False), test


def best_ranker(name: str, signals: Mapping[str, np.ndarray], known: Wanted) -> tuple[Scorer, str]:
    """Fit a ranker's variants and keep the one with the highest NDCG on validation lists, and what it is.

    Args: signals: name -> 0/1 matrix [U, I] of training pairs that may be counted.
    """

    def worth(scores: np.ndarray) -> float:
        return float(list_metrics(scores.__getitem__, known)["ndcg"].mean())

    fitted = {signal: best_variant(name, matrix, worth) for signal, matrix in signals.items()}
    signal = max(fitted, key=lambda s: worth(fitted[s][1]))
    setting, scores = fitted[signal]
    return scores.__getitem__, ", ".join(part for part in (f"of {signal}", setting) if part)
