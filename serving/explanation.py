"""Where an answer's scores come from, as plain values: `serving.explain` makes them, the client gets them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarItem:
    """An item of the user's history, and its cosine similarity to an item of the list."""

    item_id: str
    title: str
    """Empty: the item has none."""
    kind: str
    """Of the user's latest feedback on it."""
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemExplanation:
    """Where one item's score comes from."""

    contributions: Mapping[str, float]
    """Part of each task in the score, or in its logarithm (`ListExplanation.formula`)."""
    nearest: tuple[SimilarItem, ...]
    """Most similar first."""
    gates: Mapping[str, tuple[float, ...]]
    """Weight of each expert, by task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEvent:
    """One event that the model saw."""

    item_id: str
    kind: str
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ListExplanation:
    """What all items of an answer were scored with."""

    history: tuple[HistoryEvent, ...]
    """Newest first."""
    formula: str
    weights: Mapping[str, float]
