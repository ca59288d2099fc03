"""Request -> candidates: none that is not allowed, and not too few while there are more."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from serving.overlay import Stock
from serving.ports import Mask, Model, Rows
from serving.request import RankRequest

RETRIEVAL, POPULAR, SIMILAR, REQUEST, PINNED, CATALOGUE, FRESH = (1 << bit for bit in range(7))
SOURCES: Mapping[int, str] = {
    RETRIEVAL: "retrieval",
    POPULAR: "popular",
    SIMILAR: "similar",
    REQUEST: "request",
    PINNED: "pinned",
    CATALOGUE: "catalogue",
    FRESH: "fresh",
}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Rows of the catalogue, each once, best source first."""

    rows: Rows
    """[N]."""
    sources: np.ndarray
    """[N], bits of SOURCES."""

    def first(self, count: int) -> "Candidates":
        """Keep the first ones; pinned items always come first."""
        return Candidates(rows=self.rows[:count], sources=self.sources[:count])

    def count(self) -> dict[str, int]:
        """Count candidates by source."""
        counts = {name: int(((self.sources & bit) > 0).sum()) for bit, name in SOURCES.items()}
        return {name: count for name, count in counts.items() if count}


class Retrieval:
    """Finds candidates with one model."""

    def __init__(self, model: Model, *, num_candidates: int, num_popular: int) -> None:
        self.model = model
        self.num_candidates = num_candidates
        self.num_popular = num_popular
        self._popular_rows = model.catalogue.known_rows(model.popular)

    def find(self, request: RankRequest, stock: Stock, allowed: Mask, side: Any, need: int) -> Candidates:
        """Find candidates for `need` positions.

        Args: allowed [catalogue], side the scorer's user side (None: only popularity is known).
        """
        catalogue = stock.catalogue
        found = _Found(allowed)
        found.add(PINNED, catalogue.known_rows(pin.item_id for pin in request.pins))
        if request.item_ids is not None:
            found.add(REQUEST, catalogue.known_rows(request.item_ids))
            return found.candidates()
        wanted = max(self.num_candidates, need)
        seed_row = catalogue.rows.get(request.seed_item_id or "", -1)
        if stock.scorer is not None and seed_row >= 0:
            found.forbid(seed_row)
            nearest = stock.scorer.similar(seed_row, wanted, found.mask())
            found.add(SIMILAR, nearest)
        else:
            nearest = _nearest(stock, side, wanted, found.mask())
            found.add(RETRIEVAL, nearest)
            found.add(POPULAR, self._popular(allowed, self.num_popular if side is not None else wanted))
        found.add(FRESH, nearest[nearest >= catalogue.num_in_bundle])
        if len(found) < need:
            found.add(POPULAR, self._popular(allowed, need))
        if len(found) < need:
            found.add(CATALOGUE, np.flatnonzero(allowed)[: need + len(found)])
        return found.candidates()

    def _popular(self, allowed: Mask, k: int) -> Rows:
        rows = self._popular_rows
        return rows[allowed[rows]][:k]


def _nearest(stock: Stock, side: Any, k: int, allowed: Mask | None) -> Rows:
    if side is None or stock.scorer is None:
        return np.empty(0, dtype=np.int64)
    return stock.scorer.retrieve(side, k, allowed)


class _Found:
    """Candidates so far, each row once; what is not allowed never gets in."""

    def __init__(self, allowed: Mask) -> None:
        self._allowed = allowed
        self._sources: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def forbid(self, row: int) -> None:
        self._allowed = self._allowed.copy()
        self._allowed[row] = False

    def mask(self) -> Mask | None:
        """Give what is allowed; None when nothing is forbidden."""
        return None if self._allowed.all() else self._allowed

    def add(self, source: int, rows: Iterable[int]) -> None:
        rows = np.asarray(rows, dtype=np.int64)
        fine = self._allowed[rows]
        if source in (RETRIEVAL, SIMILAR) and not fine.all():
            # The index filters by itself; that it failed to is worth knowing, and is never shown.
            _log.error("forbidden_candidates", source=SOURCES[source], count=int((~fine).sum()))
        for row in rows[fine].tolist():
            self._sources[row] = self._sources.get(row, 0) | source

    def candidates(self) -> Candidates:
        return Candidates(
            rows=np.fromiter(self._sources, dtype=np.int64, count=len(self._sources)),
            sources=np.fromiter(self._sources.values(), dtype=np.int64, count=len(self._sources)),
        )
