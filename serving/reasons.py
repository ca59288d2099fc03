"""Reasons: why an item is in the list, as text for people."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.catalogue import Catalogue
from serving.retrieval import CATALOGUE, ITEM_ITEM, PINNED, POPULAR, REPEAT, RETRIEVAL, SIMILAR

# Items with at least this cosine similarity are called similar.
_MIN_COSINE = 0.5

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

    def of(self, rows: npt.NDArray[np.int64], sources: npt.NDArray[np.int64]) -> list[tuple[str, ...]]:
        """Return up to two reasons for each item of a page [K], the most personal first.

        Args: rows: [K]; sources: [K], bits of SOURCES.
        """
        personal = self._similar(rows, sources)
        others = map(self._other, rows.tolist(), sources.tolist())
        found = zip(personal, others, strict=True)
        return [(a, b) if a and b else (a,) if a else (b,) if b else () for a, b in found]

    def _similar(self, rows: npt.NDArray[np.int64], sources: npt.NDArray[np.int64]) -> list[str | None]:
        """Name for each item [K] the seed, or else the item of the user's history that it is similar to."""
        past = [(row, kind) for row, kind in self.past if row >= 0]
        said: list[str | None] = [None] * rows.size
        if self.vectors is None or not rows.size or (self.seed_row is None and not past):
            return said
        at_past = np.array([row for row, _ in past], np.int64)
        at_seed = np.array([] if self.seed_row is None else [self.seed_row], np.int64)
        vectors = self.vectors(np.concatenate([rows, at_seed, at_past]))
        cosines = vectors[: rows.size] @ vectors[rows.size :].T
        is_similar = (sources & SIMILAR) > 0
        if self.seed_row is not None:
            like_seed = f"similar to {self._name(self.seed_row)}"
            for k in np.flatnonzero(is_similar & (cosines[:, 0] >= _MIN_COSINE)).tolist():
                said[k] = like_seed
        if past:
            like_past = cosines[:, at_seed.size :]
            like_past[rows[:, None] == at_past] = -np.inf  # an item is not similar to itself
            nearest = np.argmax(like_past, axis=1)
            is_near = like_past[np.arange(rows.size), nearest] >= _MIN_COSINE
            texts: dict[int, str] = {}
            for k in np.flatnonzero(is_near & ~is_similar).tolist():
                event = int(nearest[k])
                if event not in texts:
                    at, kind = past[event]
                    texts[event] = f"similar to {self._name(at)} you {past_tense(kind)}"
                said[k] = texts[event]
        return said

    def _other(self, row: int, sources: int) -> str | None:
        if sources & PINNED:
            return "chosen by hand"
        if sources & REPEAT:
            return "you chose it before"
        if sources & ITEM_ITEM:
            return "often chosen with items you chose"
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
