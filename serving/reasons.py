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

    def of(self, rows: npt.NDArray[np.int64], sources: npt.NDArray[np.int64]) -> list[tuple[str, ...]]:
        """Return up to two reasons for each item of a page [K], the most personal first.

        Args: rows: [K]; sources: [K], bits of SOURCES.
        """
        personal = self._similar(rows, sources)
        each = zip(personal, rows.tolist(), sources.tolist(), strict=True)
        return [
            tuple(reason for reason in (similar, self._other(row, bits)) if reason)
            for similar, row, bits in each
        ]

    def _similar(self, rows: npt.NDArray[np.int64], sources: npt.NDArray[np.int64]) -> list[str | None]:
        """Name for each item [K] the seed, or else the item of the user's history that it is similar to."""
        past = [(row, kind) for row, kind in self.past if row >= 0]
        if self.vectors is None or not rows.size or (self.seed_row is None and not past):
            return [None] * rows.size
        others = [*([] if self.seed_row is None else [self.seed_row]), *(row for row, _ in past)]
        vectors = self.vectors(np.concatenate([rows, np.array(others, np.int64)]))
        cosines = vectors[: rows.size] @ vectors[rows.size :].T
        said = [self._like_seed(found) for found in cosines[:, 0]] if self.seed_row is not None else []
        like_past = cosines[:, len(others) - len(past) :]
        return [
            (said[k] if said else None)
            if sources[k] & SIMILAR
            else self._like_past(rows[k], past, like_past[k])
            for k in range(rows.size)
        ]

    def _like_seed(self, cosine: float) -> str | None:
        assert self.seed_row is not None
        return f"similar to {self._name(self.seed_row)}" if cosine >= _MIN_COSINE else None

    def _like_past(
        self, row: int, past: Sequence[tuple[int, str]], cosines: npt.NDArray[np.float32]
    ) -> str | None:
        """Name the most similar item of the user's history."""
        others = [at != row for at, _ in past]
        if not any(others):
            return None
        nearest = int(np.argmax(np.where(others, cosines, -np.inf)))
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
