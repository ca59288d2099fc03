"""Reasons: why an item is in the list, as text for people."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.catalogue import Catalogue
from serving.protocols import PastEvent
from serving.retrieval import CATALOGUE, PINNED, POPULAR, RETRIEVAL, SIMILAR

# Items with at least this cosine similarity are called similar.
_MIN_COSINE = 0.5
_NUM_PAST_EVENTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """Makes the reasons of one request's items."""

    catalogue: Catalogue
    vectors: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]] | None
    """Rows [N] -> unit vectors [N, D]; None: there is no model."""
    history: Sequence[PastEvent] = ()
    """Newest first."""
    seed_item_id: str | None = None

    def of(self, row: int, sources: int) -> tuple[str, ...]:
        """Return up to two reasons, the most personal first."""
        reasons = [
            self._similar_to_seed(row, sources),
            self._like_history(row, sources),
            self._other(row, sources),
        ]
        return tuple(reason for reason in reasons if reason)[:2]

    def _similar_to_seed(self, row: int, sources: int) -> str | None:
        if not sources & SIMILAR or self.seed_item_id is None or self.vectors is None:
            return None
        seed = self.catalogue.rows[self.seed_item_id]
        vectors = self.vectors(np.array([row, seed], dtype=np.int64))
        return f"similar to {self._name(seed)}" if vectors[0] @ vectors[1] >= _MIN_COSINE else None

    def _like_history(self, row: int, sources: int) -> str | None:
        """Name the most similar item of the user's history."""
        if self.vectors is None or sources & SIMILAR:
            return None
        past = [(self.catalogue.rows.get(e.item_id, -1), e.kind) for e in self.history[:_NUM_PAST_EVENTS]]
        past = [(at, kind) for at, kind in past if at not in (-1, row)]
        if not past:
            return None
        vectors = self.vectors(np.array([row, *(at for at, _ in past)], dtype=np.int64))
        cosines = vectors[1:] @ vectors[0]
        nearest = int(np.argmax(cosines))
        if cosines[nearest] < _MIN_COSINE:
            return None
        at, kind = past[nearest]
        return f"similar to {self._name(at)} you {past_tense(kind)}"

    def _other(self, row: int, sources: int) -> str | None:
        if sources & PINNED:
            return "chosen by hand"
        if sources & POPULAR:
            category = self.catalogue.category_of(row)
            return f"popular in {category}" if category else "popular"
        if sources & RETRIEVAL:
            return "fits your taste" if self.history else "liked by many"
        return "from the catalogue" if sources & CATALOGUE else None

    def _name(self, row: int) -> str:
        return self.catalogue.titles[row] or self.catalogue.item_ids[row]


def past_tense(kind: str) -> str:
    """Return the past tense of a feedback kind: click -> clicked, rating -> rated."""
    verb = kind.replace("_", " ")
    if verb.endswith("ing"):
        verb = verb.removesuffix("ing") + "e"
    return f"{verb}d" if verb.endswith("e") else f"{verb}ed"
