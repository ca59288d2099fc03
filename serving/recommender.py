"""One ranking call, from a checked request to a journalled answer.

page 1    engine -> scored candidates -> draw the page -> journal -> answer
page n    token  -> scored candidates -> draw the page -> journal -> answer
"""

import threading
from dataclasses import replace

import structlog

from recsys.errors import JournalError
from serving.clock import Clock
from serving.engine import Engine
from serving.journal import Journal
from serving.journal_rows import answer_rows
from serving.page_tokens import PageCursor, PageTokens
from serving.request import JOURNAL_UNAVAILABLE, Deadline, RankedList, RankRequest, VersionError
from serving.stats import ServerStats

_log = structlog.get_logger(__name__)


class Recommender:
    """Answers ranking requests with the live engine; safe to call from many threads."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        clock: Clock,
        stats: ServerStats,
        page_tokens: PageTokens | None = None,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._clock = clock
        self._stats = stats
        self._page_tokens = page_tokens or PageTokens()
        self._swapped = threading.Condition()
        self.loaded_at_ms = clock.now_ms()

    @property
    def engine(self) -> Engine:
        """Return the live engine."""
        return self._engine

    @property
    def version(self) -> str | None:
        """Return the live engine's bundle version; None without a bundle."""
        return self._engine.model.version

    def swap(self, engine: Engine) -> None:
        """Replace the live engine. Calls in progress finish with the engine they began with."""
        with self._swapped:
            previous, self._engine = self.version, engine
            self.loaded_at_ms = self._clock.now_ms()
            self._swapped.notify_all()
        _log.info("swapped", version=self.version, previous=previous)

    def wait_for(self, version: str, timeout_s: float) -> bool:
        """Wait until a version is live; return False when it is not in time."""
        with self._swapped:
            return self._swapped.wait_for(lambda: self.version == version, timeout_s)

    def answer(self, request: RankRequest, deadline: Deadline) -> RankedList:
        """Rank, journal, and return one page.

        Raises: FieldError, VersionError, OverloadedError; ExpiredError when nobody waits for it any more.
        """
        engine = self._engine
        now_ms = self._clock.now_ms()
        if request.validate_only:
            return self._validated(engine, request, now_ms)
        cursor = self._cursor(engine, request, now_ms, deadline)
        answer, cursor = self._draw_and_journal(request, cursor, now_ms, deadline)
        self._stats.degraded(answer.degradation)
        return self._with_token(request, answer, cursor, now_ms)

    def _cursor(self, engine: Engine, request: RankRequest, now_ms: int, deadline: Deadline) -> PageCursor:
        if request.page_token:
            cursor = self._page_tokens.read(request.page_token, request.user_id, now_ms)
            if request.bundle_version not in (None, cursor.scored.bundle_version):
                raise VersionError(
                    f"bundle_version {request.bundle_version!r} is not the version of this list, "
                    f"{cursor.scored.bundle_version!r} is: leave the field empty, or ask for page 1 again"
                )
            return cursor
        # An exploring list that is not logged costs the user and teaches the model nothing.
        explore = self._journal.healthy and (request.log or request.seed is not None)
        return PageCursor(
            scored=engine.score_candidates(request, now_ms, deadline, explore=explore), starts=(0,)
        )

    def _draw_and_journal(
        self, request: RankRequest, cursor: PageCursor, now_ms: int, deadline: Deadline
    ) -> tuple[RankedList, PageCursor]:
        """Draw the page and journal it; when the journal fails, the answer does not explore and says so."""
        withdrawn = self._withdrawn(request, cursor, now_ms)
        answer = cursor.scored.page(cursor.starts, request.page_size, now_ms, withdrawn)
        deadline.require_waiting()  # a list that nobody gets is no impression
        if not request.log:
            return answer, cursor
        try:
            self._journal.append(*answer_rows(request, answer))
            return answer, cursor
        except JournalError:
            # After page 1 the order must stay, or an item could appear twice.
            first = len(cursor.starts) == 1
            scored = cursor.scored
            scored = (scored.without_exploration if first else scored.degraded)(JOURNAL_UNAVAILABLE)
            unlogged = PageCursor(scored=scored, starts=cursor.starts)
            return scored.page(cursor.starts, request.page_size, now_ms, withdrawn), unlogged

    def _withdrawn(self, request: RankRequest, cursor: PageCursor, now_ms: int) -> frozenset[str]:
        """List the candidates that may no longer be shown; on page 1 there are none."""
        if len(cursor.starts) == 1:
            return frozenset()
        catalogue = self._engine.live_catalogue.current().catalogue
        allowed = catalogue.allowed(request.filter, request.forbidden_item_ids, now_ms)
        rows = {item_id: catalogue.rows.get(item_id, -1) for item_id in cursor.scored.item_ids}
        return frozenset(item_id for item_id, row in rows.items() if row < 0 or not allowed[row])

    def _with_token(
        self, request: RankRequest, answer: RankedList, cursor: PageCursor, now_ms: int
    ) -> RankedList:
        following = cursor.starts[-1] + request.page_size
        if following >= cursor.scored.num_candidates:
            return answer
        starts = (*cursor.starts, following)
        token = self._page_tokens.issue(cursor.scored, starts, request.user_id, now_ms)
        return replace(answer, next_page_token=token)

    def _validated(self, engine: Engine, request: RankRequest, now_ms: int) -> RankedList:
        engine.check(request)
        if request.page_token:
            self._page_tokens.read(request.page_token, request.user_id, now_ms)
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
