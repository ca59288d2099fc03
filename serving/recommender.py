"""One ranking call, from a checked request to a journalled answer.

page 1              engine -> scored candidates -> draw the page -> journal -> answer, next page's token
page n    token  -> engine -> scored candidates -> draw the page -> journal -> answer, next page's token
"""

import threading
from dataclasses import replace

import structlog

from recsys.errors import JournalError
from serving.clock import Clock
from serving.engine import Engine
from serving.journal import Journal
from serving.journal_rows import answer_rows
from serving.loaded_engines import LoadedEngines
from serving.pages.tokens import PageTokens
from serving.request import JOURNAL_UNAVAILABLE, Deadline, RankedItems, RankedList, RankRequest
from serving.scored_candidates import ScoredCandidates
from serving.stages import StageTimer
from serving.stats import ServerStats

_log = structlog.get_logger(__name__)


class Recommender:
    """Answers ranking requests with the live engine, or one that a request names; for many threads.

    Args: keep_loaded: versions held in all; see `LoadedEngines`.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        clock: Clock,
        stats: ServerStats,
        page_tokens: PageTokens,
        keep_loaded: int = 1,
    ) -> None:
        self.loaded = LoadedEngines(engine, keep_loaded)
        self._journal = journal
        self._clock = clock
        self._stats = stats
        self._page_tokens = page_tokens
        self._swapped = threading.Condition()
        self.loaded_at_ms = clock.now_ms()

    @property
    def engine(self) -> Engine:
        """Return the live engine."""
        return self.loaded.live

    @property
    def version(self) -> str | None:
        """Return the live engine's bundle version; None without a bundle."""
        return self.loaded.live.model.version

    def swap(self, engine: Engine) -> None:
        """Make an engine live. Calls in progress finish with the engine they began with."""
        with self._swapped:
            previous = self.version
            self.loaded.make_live(engine)
            self.loaded_at_ms = self._clock.now_ms()
            self._swapped.notify_all()
        _log.info("swapped", version=self.version, previous=previous)

    def wait_for(self, version: str, timeout_s: float) -> bool:
        """Wait until a version is live; return False when it is not in time."""
        with self._swapped:
            return self._swapped.wait_for(lambda: self.version == version, timeout_s)

    def answer(self, request: RankRequest, deadline: Deadline, timer: StageTimer | None = None) -> RankedList:
        """Rank, journal, and return one page.

        Args: timer: records the stages.
        Raises: FieldError, VersionError, OverloadedError; ExpiredError when nobody waits for it any more.
        """
        engine = self.loaded.require(request.bundle_version)
        now_ms = self._clock.now_ms()
        if request.validate_only:
            return self._validated(engine, request, now_ms)
        state = self._page_tokens.read(request, now_ms) if request.page_token else None
        # An exploring list that is not logged costs the user and teaches the model nothing.
        explore = self._journal.healthy and (request.log or request.seed is not None)
        timer = timer or StageTimer()
        scored = engine.score_candidates(request, now_ms, deadline, state=state, explore=explore, timer=timer)
        answer = self._draw_and_journal(request, scored, deadline, timer)
        self._stats.degraded(answer.degradation)
        if answer.following is None:
            return answer
        return replace(answer, next_page_token=self._page_tokens.issue(answer.following, request, now_ms))

    def _draw_and_journal(
        self, request: RankRequest, scored: ScoredCandidates, deadline: Deadline, timer: StageTimer
    ) -> RankedList:
        """Draw the page and journal it; when the journal fails, the page does not explore and says so."""
        answer = scored.page(request.page_size)
        timer.record("policy")
        deadline.require_waiting()  # a list that nobody gets is no impression
        if not request.log:
            return answer
        try:
            self._journal.append(*answer_rows(request, answer))
        except JournalError:
            timer.record("journal")
            return scored.without_exploration(JOURNAL_UNAVAILABLE).page(request.page_size)
        timer.record("journal")
        self._stats.shown(len(answer.items), first_page=scored.state.prefix is None, explored=answer.explored)
        return answer

    def _validated(self, engine: Engine, request: RankRequest, now_ms: int) -> RankedList:
        engine.check(request)
        if request.page_token:
            self._page_tokens.read(request, now_ms)
        return RankedList(
            request_id="",
            list_id="",
            bundle_version=engine.model.version,
            items=RankedItems(),
            at_ms=now_ms,
            policy="",
            policy_parameters={},
            explored=False,
            seed=0,
        )
