"""One call, from a checked request to an answer that is written down: version, page, draw, journal.

page 1    engine -> slate -> page        page n    token -> slate -> page        then: journal, and only then
reply
"""

import threading
from dataclasses import replace

import structlog

from recsys.errors import JournalError
from serving.clock import Clock
from serving.engine import Engine
from serving.journal import Journal
from serving.pages import Page, Pages
from serving.records import answer_rows
from serving.request import JOURNAL_UNAVAILABLE, Budget, RankedList, RankRequest, VersionError
from serving.stats import Stats

_log = structlog.get_logger(__name__)


class Recommender:
    """Answers ranking requests with whichever engine is live; safe to call from many threads."""

    def __init__(
        self, engine: Engine, journal: Journal, clock: Clock, stats: Stats, pages: Pages | None = None
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._clock = clock
        self._stats = stats
        self._pages = pages or Pages()
        self._swapping = threading.Condition()
        self.loaded_at_ms = clock.now_ms()

    @property
    def engine(self) -> Engine:
        """Give the live engine."""
        return self._engine

    @property
    def version(self) -> str | None:
        """Name the live version; None without a bundle."""
        return self._engine.model.version

    def swap(self, engine: Engine) -> None:
        """Put another engine live. Calls under way finish with the one they began with."""
        with self._swapping:
            previous, self._engine = self.version, engine
            self.loaded_at_ms = self._clock.now_ms()
            self._swapping.notify_all()
        _log.info("swapped", version=self.version, previous=previous)

    def wait_for(self, version: str, timeout_s: float) -> bool:
        """Wait until a version is live; tell whether it is."""
        with self._swapping:
            return self._swapping.wait_for(lambda: self.version == version, timeout_s)

    def answer(self, request: RankRequest, budget: Budget) -> RankedList:
        """Rank, journal, and return one page.

        Raises: FieldError, VersionError, OverloadedError.
        """
        engine = self._engine
        now_ms = self._clock.now_ms()
        if request.validate_only:
            return self._nothing(engine, request, now_ms)
        page = self._page(engine, request, now_ms, budget)
        answer, page = self._written(request, page, now_ms)
        self._stats.degraded(answer.degradation)
        return self._with_token(request, answer, page, now_ms)

    def _page(self, engine: Engine, request: RankRequest, now_ms: int, budget: Budget) -> Page:
        if request.page_token:
            page = self._pages.open(request.page_token, request.user_id, now_ms)
            if request.bundle_version not in (None, page.slate.bundle_version):
                raise VersionError(
                    f"bundle_version {request.bundle_version!r} did not make this list, "
                    f"{page.slate.bundle_version!r} did: leave the field empty, or ask for page 1 again"
                )
            return page
        # A draw that nobody can learn from is not worth its cost to the user.
        explore = self._journal.healthy and (request.log or request.seed is not None)
        return Page(slate=engine.slate(request, now_ms, budget, explore=explore), starts=(0,))

    def _written(self, request: RankRequest, page: Page, now_ms: int) -> tuple[RankedList, Page]:
        """Draw the page and journal it; when that fails, answer without exploration and say so."""
        withdrawn = self._withdrawn(request, page, now_ms)
        answer = page.slate.page(page.starts, request.page_size, now_ms, withdrawn)
        if not request.log:
            return answer, page
        try:
            self._journal.append(*answer_rows(request, answer))
            return answer, page
        except JournalError:
            # A list whose beginning was shown already keeps its order.
            first = len(page.starts) == 1
            slate = (
                page.slate.greedy(JOURNAL_UNAVAILABLE) if first else page.slate.degraded(JOURNAL_UNAVAILABLE)
            )
            unlogged = Page(slate=slate, starts=page.starts)
            return slate.page(page.starts, request.page_size, now_ms, withdrawn), unlogged

    def _withdrawn(self, request: RankRequest, page: Page, now_ms: int) -> frozenset[str]:
        """Name the candidates that were fine on page 1 and may not be shown any more."""
        if len(page.starts) == 1:
            return frozenset()
        catalogue = self._engine.shelf.now().catalogue
        allowed = catalogue.allowed(request.filter, request.forbidden_item_ids, now_ms)
        rows = {item_id: catalogue.rows.get(item_id, -1) for item_id in page.slate.item_ids}
        return frozenset(item_id for item_id, row in rows.items() if row < 0 or not allowed[row])

    def _with_token(self, request: RankRequest, answer: RankedList, page: Page, now_ms: int) -> RankedList:
        following = page.starts[-1] + request.page_size
        if following >= page.slate.num_candidates:
            return answer
        starts = (*page.starts, following)
        token = self._pages.remember(page.slate, starts, request.user_id, now_ms)
        return replace(answer, next_page_token=token)

    def _nothing(self, engine: Engine, request: RankRequest, now_ms: int) -> RankedList:
        engine.check(request)
        if request.page_token:
            self._pages.open(request.page_token, request.user_id, now_ms)
        return RankedList(
            request_id="",
            bundle_version=engine.model.version,
            items=(),
            at_ms=now_ms,
            policy="",
            policy_parameters={},
            explored=False,
            seed=0,
        )
