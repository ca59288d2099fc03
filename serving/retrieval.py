"""Candidate retrieval: only allowed items, and at least as many as the page needs while there are enough.

Items shown on earlier pages of a list are known by hash only. They are few, so they are found again with the
others and left out then.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from recsys.mask import Mask
from serving.catalogue import Catalogue
from serving.live_catalogue import CatalogueWithScorer
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
        self._popular_rows = model.catalogue.rows_of(model.popular)

    def find(
        self,
        request: RankRequest,
        live: CatalogueWithScorer,
        allowed: Mask,
        user_side: Any,
        state: ListState,
    ) -> Candidates:
        """Find candidates for a page, and while there are enough, one more: then the list has a next page.

        Args: allowed: by catalogue row; user_side: the scorer's, None when only popularity can rank; state:
        the list before the page.
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
            nearest = live.scorer.similar(seed, num_wanted, builder.mask())
            builder.add(SIMILAR, nearest)
        else:
            nearest = _nearest(live, user_side, num_wanted, builder.mask())
            builder.add(RETRIEVAL, nearest)
            num_popular = num_wanted if user_side is None else self.num_popular + num_shown
            builder.add(POPULAR, self._popular(allowed, num_popular))
        builder.add(FRESH, nearest[nearest >= catalogue.num_in_bundle])
        if len(builder) < num_needed:
            builder.add(POPULAR, self._popular(allowed, num_needed + num_shown))
        if len(builder) < num_needed:
            builder.add(CATALOGUE, allowed.first(num_needed + num_shown + len(builder)))
        return builder.candidates()

    def _popular(self, allowed: Mask, k: int) -> Rows:
        rows = self._popular_rows
        found: Rows = rows[allowed[rows]][:k]
        return found


def seed_row(request: RankRequest, live: CatalogueWithScorer) -> int | None:
    """Return the row of the item that the list shall be similar to; None when it has no seed."""
    if request.seed_item_id is None or request.item_ids is not None or live.scorer is None:
        return None
    return next(iter(live.catalogue.rows_of((request.seed_item_id,)).tolist()), None)


def _nearest(live: CatalogueWithScorer, user_side: Any, k: int, allowed: Mask | None) -> Rows:
    if user_side is None or live.scorer is None:
        return np.empty(0, dtype=np.int64)
    return live.scorer.retrieve(user_side, k, allowed)


class _CandidateBuilder:
    """Collects candidates, each row once; rows that are not allowed, or were shown, are left out."""

    def __init__(self, catalogue: Catalogue, allowed: Mask, shown: frozenset[int]) -> None:
        self._catalogue = catalogue
        self._allowed = allowed
        self._shown = shown
        self._sources: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def forbid(self, row: int) -> None:
        """Leave a row out from now on."""
        self._allowed = self._allowed.without(np.array([row]))

    def mask(self) -> Mask | None:
        """Return the allowed rows; None when all are."""
        return None if self._allowed.count == self._allowed.size else self._allowed

    def add(self, source: int, rows: Iterable[int]) -> None:
        rows = np.asarray(rows, dtype=np.int64)
        permitted = self._allowed[rows]
        if source in (RETRIEVAL, SIMILAR) and not permitted.all():
            # The index filters by itself. If it fails to, this log entry says so; the items are not shown.
            _log.error("forbidden_candidates", source=SOURCES[source], count=int((~permitted).sum()))
        for row in rows[permitted].tolist():
            if self._shown and item_hash(self._catalogue.item_ids[row]) in self._shown:
                continue
            self._sources[row] = self._sources.get(row, 0) | source

    def candidates(self) -> Candidates:
        return Candidates(
            rows=np.fromiter(self._sources, dtype=np.int64, count=len(self._sources)),
            sources=np.fromiter(self._sources.values(), dtype=np.int64, count=len(self._sources)),
        )
