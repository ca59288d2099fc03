"""Candidate retrieval: only allowed items, and at least as many as the page needs while there are enough.

Items shown on earlier pages of a list are known by hash only. They are few, so they are found again with the
others and left out then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import structlog

from recsys.config import ItemItemConfig, RetrievalConfig
from recsys.id_table import MISSING
from recsys.mask import Mask
from recsys.user_sources import UserSources
from serving.catalogue import Allowed, Catalogue
from serving.catalogue.live import CatalogueWithScorer
from serving.pages.list_state import ListState
from serving.protocols import Rows
from serving.request import RankRequest
from serving.served_model import ServedModel

RETRIEVAL, POPULAR, SIMILAR, REQUEST, PINNED, CATALOGUE, FRESH, ITEM_ITEM, REPEAT = (
    1 << bit for bit in range(9)
)
SOURCES: Mapping[int, str] = {
    RETRIEVAL: "retrieval",
    POPULAR: "popular",
    SIMILAR: "similar",
    REQUEST: "request",
    PINNED: "pinned",
    CATALOGUE: "catalogue",
    FRESH: "fresh",
    ITEM_ITEM: "item_item",
    REPEAT: "repeat",
}
NO_PAST = UserSources()
_log = structlog.get_logger(__name__)


@cache
def source_names(bits: int) -> tuple[str, ...]:
    """Name the sources of bits."""
    return tuple(name for bit, name in SOURCES.items() if bits & bit)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedItems:
    """The catalogue rows of the items that a request names."""

    listed: Rows | None
    """The caller's candidates [N], MISSING where the catalogue has none; None: the server finds them."""
    seed: int | None
    """None: the request names no seed, or one that the catalogue does not have."""
    pins: Mapping[int, int]
    """Position (from 0) on this page or a later one -> row, or MISSING."""
    unknown_allowed: tuple[str, ...]
    """Ids of `allow_item_ids` that the catalogue does not have, sorted."""

    @classmethod
    def of(cls, request: RankRequest, catalogue: Catalogue, state: ListState) -> "NamedItems":
        """Look up the rows, each once."""
        seed = MISSING if request.seed_item_id is None else catalogue.row_of(request.seed_item_id)
        return cls(
            listed=None if request.item_ids is None else catalogue.rows_or_missing(request.item_ids),
            seed=None if seed == MISSING else seed,
            pins={
                pin.position - 1: catalogue.row_of(pin.item_id)
                for pin in request.pins
                if pin.position > state.start
            },
            unknown_allowed=_unknown(sorted(request.filter.allow_item_ids), catalogue),
        )

    @property
    def pinned(self) -> Rows:
        """List the rows of the pins that the catalogue has."""
        return np.array([row for row in self.pins.values() if row != MISSING], np.int64)

    def placed(self, candidates: Candidates) -> dict[int, int]:
        """Map position (from 0) to candidate for the pins that may be shown: the first candidates."""
        first = {row: at for at, row in enumerate(candidates.rows[: len(self.pins)].tolist())}
        return {position: first[row] for position, row in self.pins.items() if row in first}

    def missing(self, request: RankRequest, placed: Mapping[int, int]) -> tuple[str, ...]:
        """List the ids that the catalogue does not have, and those of pins that may not be shown.

        Ids that are excluded or denied are not looked for: to name an item that is gone is no mistake there.
        """
        item_ids = request.item_ids or ()
        unknown = (
            [] if self.listed is None else [item_ids[at] for at in np.flatnonzero(self.listed == MISSING)]
        )
        if request.seed_item_id is not None and self.seed is None:
            unknown.append(request.seed_item_id)
        unknown += self.unknown_allowed
        not_shown = self.pins.keys() - placed.keys()
        unknown += [pin.item_id for pin in request.pins if pin.position - 1 in not_shown]
        return tuple(dict.fromkeys(unknown))


def _unknown(item_ids: Sequence[str], catalogue: Catalogue) -> tuple[str, ...]:
    """List the ids that the catalogue does not have."""
    rows = catalogue.rows_or_missing(item_ids)
    return tuple(item_ids[at] for at in np.flatnonzero(rows == MISSING).tolist())


class Retrieval:
    """Finds candidates with one model."""

    def __init__(
        self, model: ServedModel, config: RetrievalConfig, item_item: ItemItemConfig | None = None
    ) -> None:
        self.model = model
        self.num_candidates = config.num_candidates
        self.num_popular = config.popular_candidates
        self.num_item_item = (item_item or ItemItemConfig()).candidates
        self.num_repeat = config.repeat_candidates if model.past.repeat_kinds else 0
        self.num_fresh = config.fresh_candidates

    def find(
        self,
        page_size: int,
        named: NamedItems,
        live: CatalogueWithScorer,
        allowed: Allowed,
        user_side: Any,
        shown: frozenset[int],
        most: int | None = None,
        past: UserSources = NO_PAST,
    ) -> Candidates:
        """Find candidates for a page, and while there are enough, one more: then the list has a next page.

        Args: user_side: the scorer's, None when only popularity can rank; shown: `id_hash` of the items on
        the pages before; most: how many to search the index for where a page needs no more; 0: it is not
        searched for similar items either; past: scores of items by what the user took.
        """
        builder = _CandidateBuilder(live.catalogue, allowed, shown)
        builder.add(PINNED, named.pinned)
        if named.listed is not None:
            builder.add(REQUEST, named.listed[named.listed != MISSING])
            return builder.candidates()
        # Those pinned below this page take no place on it.
        num_needed = page_size + len(named.pins) + 1
        most = self.num_candidates if most is None else min(most, self.num_candidates)
        num_wanted = max(most, num_needed) + len(shown)
        if named.seed is not None:
            builder.forbid(named.seed)
        if live.scorer is not None and named.seed is not None and most:
            found = live.scorer.similar(named.seed, *builder.allowed.search(num_wanted))
            nearest = builder.add_found(SIMILAR, found, num_wanted)
        else:
            found = _nearest(live, user_side, *builder.allowed.search(num_wanted))
            nearest = builder.add_found(RETRIEVAL, found, num_wanted)
            for source, scores, count in (
                (ITEM_ITEM, past.item_item, self.num_item_item),
                (REPEAT, past.repeat, self.num_repeat),
            ):
                best = scores.best(count and count + len(shown), builder.allowed.of)
                builder.add_allowed(source, best)
            num_popular = num_wanted if user_side is None else self.num_popular + len(shown)
            builder.add_allowed(POPULAR, self.model.popular.first(num_popular, builder.allowed))
        builder.add(FRESH, nearest[nearest >= live.catalogue.num_in_bundle])
        if named.seed is None and most == self.num_candidates:
            builder.add_first(FRESH, _newest(live.catalogue), self.num_fresh)
        if len(builder) < num_needed:
            builder.add_allowed(POPULAR, self.model.popular.first(num_needed + len(shown), builder.allowed))
        if len(builder) < num_needed:
            builder.add_allowed(CATALOGUE, builder.allowed.first(num_needed + len(shown) + len(builder)))
        return builder.candidates()

    def count(self, named: NamedItems) -> int:
        """Return about how many candidates `find` would find."""
        if named.listed is not None:
            return named.listed.size
        num_item_item = self.num_item_item if self.model.past.table is not None else 0
        return self.num_candidates + self.num_popular + num_item_item + self.num_repeat

    def again(
        self,
        known: Candidates,
        named: NamedItems,
        live: CatalogueWithScorer,
        allowed: Allowed,
        shown: frozenset[int],
    ) -> Candidates:
        """Return the known candidates that may be shown now; pinned items first, known or not."""
        builder = _CandidateBuilder(live.catalogue, allowed, shown)
        builder.add(PINNED, named.pinned)
        if named.seed is not None:
            builder.forbid(named.seed)
        for source in np.unique(known.sources).tolist():
            builder.add(source, known.rows[known.sources == source])
        return builder.candidates()


def _newest(catalogue: Catalogue) -> Rows:
    """List the items that the bundle does not have, those sent last first."""
    return np.arange(len(catalogue) - 1, catalogue.num_in_bundle - 1, -1, dtype=np.int64)


def _nearest(live: CatalogueWithScorer, user_side: Any, k: int, allowed: Mask | None) -> Rows:
    if user_side is None or live.scorer is None:
        return np.empty(0, dtype=np.int64)
    return live.scorer.retrieve(user_side, k, allowed)


class _CandidateBuilder:
    """Collects candidates, each row once; rows that are not allowed, or were shown, are left out."""

    def __init__(self, catalogue: Catalogue, allowed: Allowed, shown: frozenset[int]) -> None:
        self._catalogue = catalogue
        self.allowed = allowed
        self._shown = np.fromiter(shown, np.uint64, len(shown))
        self._parts: list[Candidates] = []
        """In the order in which they were added; put together when the number of rows is asked for."""

    def __len__(self) -> int:
        return self.candidates().rows.size

    def forbid(self, row: int) -> None:
        """Leave a row out from now on."""
        self.allowed = self.allowed.without(row)

    def add_found(self, source: int, rows: Rows, k: int) -> Rows:
        """Add the first k allowed rows that a search found, and return them."""
        passing = self.allowed.mask[rows]
        if not passing.all():
            # The index filters by itself. If it fails to, this log entry says so; the items are not shown.
            _log.error("forbidden_candidates", source=SOURCES[source], count=int((~passing).sum()))
        nearest: Rows = rows[self.allowed.of(rows)][:k]
        self.add_allowed(source, nearest)
        return nearest

    def add_first(self, source: int, rows: Rows, count: int) -> None:
        """Add the first allowed ones of some rows."""
        if rows.size:
            self.add_allowed(source, rows[self.allowed.of(rows)][:count])

    def add(self, source: int, rows: Rows) -> None:
        """Add those of some rows that are allowed."""
        if rows.size:
            self.add_allowed(source, rows[self.allowed.of(rows)])

    def add_allowed(self, source: int, rows: Rows) -> None:
        """Add allowed rows."""
        if self._shown.size and rows.size:
            rows = rows[~np.isin(self._catalogue.hashes_of(rows), self._shown)]
        if rows.size:
            self._parts.append(Candidates(rows=rows, sources=np.full(rows.size, source)))

    def candidates(self) -> Candidates:
        """Give each row once, where it was added first, with all of its sources."""
        if len(self._parts) > 1:
            self._parts = [_each_once(self._parts)]
        return self._parts[0] if self._parts else _NO_CANDIDATES


def _each_once(parts: Sequence[Candidates]) -> Candidates:
    """Put candidates together; a row of several parts, or twice in one, keeps its first place."""
    rows = np.concatenate([part.rows for part in parts])
    sources = np.concatenate([part.sources for part in parts])
    order = np.argsort(rows, kind="stable")
    in_order = rows[order]
    starts = np.flatnonzero(np.append(True, in_order[1:] != in_order[:-1]))
    all_sources = np.bitwise_or.reduceat(sources[order], starts)
    first = order[starts]
    by_place = np.argsort(first)
    return Candidates(rows=rows[first[by_place]], sources=all_sources[by_place])


_NO_CANDIDATES = Candidates(rows=np.empty(0, np.int64), sources=np.empty(0, np.int64))
