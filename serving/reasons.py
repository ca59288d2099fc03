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


Vectors = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """Makes the reasons of one request's items."""

    catalogue: Catalogue
    vectors: Vectors | None
    """Rows [N] -> unit vectors [N, D]; None: there is no model."""
    past: Sequence[tuple[int, str]] = ()
    """The user's latest events, newest first: row (negative: not in the catalogue) and kind."""
    seed_row: int | None = None

    @classmethod
    def of_request(
        cls, catalogue: Catalogue, vectors: Vectors | None, history: Sequence[PastEvent], seed_row: int | None
    ) -> "Reasons":
        """Look up what a request's reasons need. Args: history: newest first."""
        events = history[:_NUM_PAST_EVENTS]
        rows = catalogue.rows_or_missing(event.item_id for event in events).tolist()
        past = [(row, event.kind) for row, event in zip(rows, events, strict=True)]
        return cls(catalogue=catalogue, vectors=vectors, past=past, seed_row=seed_row)

    def of(self, row: int, sources: int) -> tuple[str, ...]:
        """Return up to two reasons, the most personal first."""
        reasons = [
            self._similar_to_seed(row, sources),
            self._like_history(row, sources),
            self._other(row, sources),
        ]
        return tuple(reason for reason in reasons if reason)[:2]

    def _similar_to_seed(self, row: int, sources: int) -> str | None:
        if not sources & SIMILAR or self.seed_row is None or self.vectors is None:
            return None
        vectors = self.vectors(np.array([row, self.seed_row], dtype=np.int64))
        return f"similar to {self._name(self.seed_row)}" if vectors[0] @ vectors[1] >= _MIN_COSINE else None

    def _like_history(self, row: int, sources: int) -> str | None:
        """Name the most similar item of the user's history."""
        if self.vectors is None or sources & SIMILAR:
            return None
        past = [(at, kind) for at, kind in self.past if at >= 0 and at != row]
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
            return "fits your taste" if self.past else "liked by many"
        return "from the catalogue" if sources & CATALOGUE else None

    def _name(self, row: int) -> str:
        return self.catalogue.title_of(row) or self.catalogue.id_of(row)


def past_tense(kind: str) -> str:
    """Return the past tense of a feedback kind: click -> clicked, rating -> rated."""
    verb = kind.replace("_", " ")
    if verb.endswith("ing"):
        verb = verb.removesuffix("ing") + "e"
    return f"{verb}d" if verb.endswith("e") else f"{verb}ed"
