"""Candidate retrieval: only allowed items, and at least as many as the page needs while there are enough.

Items shown on earlier pages of a list are known by hash only. They are few, so they are found again with the
others and left out then.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from recsys.mask import Mask
from serving.catalogue import Allowed, Catalogue
from serving.catalogue.live import CatalogueWithScorer
from serving.pages.list_state import ListState, item_hash
from serving.protocols import Rows
from serving.request import RankRequest
from serving.served_model import ServedModel

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
    """Catalogue rows, each once, in order of their first source."""

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

    def __init__(self, model: ServedModel, *, num_candidates: int, num_popular: int) -> None:
        self.model = model
        self.num_candidates = num_candidates
        self.num_popular = num_popular

    def find(
        self,
        request: RankRequest,
        live: CatalogueWithScorer,
        allowed: Allowed,
        user_side: Any,
        state: ListState,
    ) -> Candidates:
        """Find candidates for a page, and while there are enough, one more: then the list has a next page.

        Args: user_side: the scorer's, None when only popularity can rank; state: the list before the page.
        """
        catalogue = live.catalogue
        builder = _CandidateBuilder(catalogue, allowed, state.shown)
        pins = request.pins_from(state.start)
        builder.add(PINNED, catalogue.rows_of(pin.item_id for pin in pins))
        if request.item_ids is not None:
            builder.add(REQUEST, catalogue.rows_of(request.item_ids))
            return builder.candidates()
        # Those pinned below this page take no place on it.
        num_needed = request.page_size + len(pins) + 1
        num_shown = len(state.shown)
        num_wanted = max(self.num_candidates, num_needed) + num_shown
        seed = seed_row(request, live)
        if live.scorer is not None and seed is not None:
            builder.forbid(seed)
            found = live.scorer.similar(seed, *builder.search(num_wanted))
            nearest = builder.add_found(SIMILAR, found, num_wanted)
        else:
            found = _nearest(live, user_side, *builder.search(num_wanted))
            nearest = builder.add_found(RETRIEVAL, found, num_wanted)
            num_popular = num_wanted if user_side is None else self.num_popular + num_shown
            builder.add(POPULAR, self.model.popular.first(num_popular, allowed))
        builder.add(FRESH, nearest[nearest >= catalogue.num_in_bundle])
        if len(builder) < num_needed:
            builder.add(POPULAR, self.model.popular.first(num_needed + num_shown, allowed))
        if len(builder) < num_needed:
            builder.add(CATALOGUE, allowed.first(num_needed + num_shown + len(builder)))
        return builder.candidates()


def seed_row(request: RankRequest, live: CatalogueWithScorer) -> int | None:
    """Return the row of the item that the list shall be similar to; None when it has no seed."""
    if request.seed_item_id is None or request.item_ids is not None or live.scorer is None:
        return None
    row = live.catalogue.row_of(request.seed_item_id)
    return None if row < 0 else row


def _nearest(live: CatalogueWithScorer, user_side: Any, k: int, allowed: Mask | None) -> Rows:
    if user_side is None or live.scorer is None:
        return np.empty(0, dtype=np.int64)
    return live.scorer.retrieve(user_side, k, allowed)


class _CandidateBuilder:
    """Collects candidates, each row once; rows that are not allowed, or were shown, are left out."""

    def __init__(self, catalogue: Catalogue, allowed: Allowed, shown: frozenset[int]) -> None:
        self._catalogue = catalogue
        self._allowed = allowed
        self._shown = shown
        self._sources: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def forbid(self, row: int) -> None:
        """Leave a row out from now on."""
        self._allowed = self._allowed.without(row)

    def search(self, k: int) -> tuple[int, Mask | None]:
        """Return how many items to search for, and among which, so that k allowed ones are found."""
        return self._allowed.search(k)

    def add_found(self, source: int, rows: Rows, k: int) -> Rows:
        """Add the first k allowed rows that a search found, and return them."""
        if not self._allowed.mask[rows].all():
            # The index filters by itself. If it fails to, this log entry says so; the items are not shown.
            count = int((~self._allowed.mask[rows]).sum())
            _log.error("forbidden_candidates", source=SOURCES[source], count=count)
        nearest: Rows = rows[self._allowed.of(rows)][:k]
        self.add(source, nearest)
        return nearest

    def add(self, source: int, rows: Rows) -> None:
        for row in rows[self._allowed.of(rows)].tolist():
            if self._shown and item_hash(self._catalogue.id_of(row)) in self._shown:
                continue
            self._sources[row] = self._sources.get(row, 0) | source

    def candidates(self) -> Candidates:
        return Candidates(
            rows=np.fromiter(self._sources, dtype=np.int64, count=len(self._sources)),
            sources=np.fromiter(self._sources.values(), dtype=np.int64, count=len(self._sources)),
        )
