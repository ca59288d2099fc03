"""Login: merges the events of an anonymous session into the user, each event once.

A call with a user_id and a session_id says that both are one person. The session's events (base and delta)
are copied as the user's feedback (see `features.sessions`): to the journal first, then to the store. A pair
merged within the last minute is not looked up again, unless the session got new feedback since.

Merging reads and writes the store and has a thread of its own. A call waits for it within its deadline; when
merging takes longer, the call goes on without it, and later calls do not wait until it has caught up.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

import structlog

from features.sessions import unmerged_events
from features.store import StoredUser
from recsys.errors import JournalError, StoreError
from serving.feedback import FeedbackRecorder
from serving.request import FieldError
from serving.request_checks import check_id

MAX_PAIRS = 65_536
MAX_PENDING = 1_024
"""Pairs that wait for the thread; others are left to their next call."""
RECHECK_S = 60.0
"""A merged pair is looked up again after this: another server may have received feedback of the session."""
_log = structlog.get_logger(__name__)


class SessionStore(Protocol):
    """The online store, as far as sessions are read from it."""

    def get_many(self, version: str, user_ids: Sequence[str]) -> list[StoredUser]:
        """Read base and delta of users, in order."""


class SessionMerger:
    """Merges sessions into users; safe to call from many threads.

    Args: version: returns the live version, whose base is read. While it returns None, nothing is merged.
    """

    def __init__(
        self,
        feedback: FeedbackRecorder,
        store: SessionStore,
        version: Callable[[], str | None],
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feedback = feedback
        self._store = store
        self._version = version
        self._elapsed_s = elapsed_s
        self._lock = threading.Lock()
        self._merged: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._pending: dict[tuple[str, str], Future[None]] = {}
        self._stale: set[str] = set()
        """Sessions that got feedback while they were pending."""
        self._behind = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="merge-sessions")

    def merge_within(self, pairs: Iterable[tuple[str, str]], wait_s: float) -> None:
        """Merge (user, session) pairs that were not merged lately on the own thread; wait for it a while.

        Args: wait_s: seconds that the caller waits at most.
        """
        new_pairs = [pair for pair in dict.fromkeys(pairs) if self._is_new(*pair)]
        if self._version() is None or not new_pairs:
            return
        waited_for = self._submit(new_pairs)
        if self._behind or not waited_for:
            return
        if wait(waited_for, max(0.0, wait_s)).not_done:
            self._behind = True
            _log.warning("merging_is_behind", pending=len(self._pending))

    def close(self) -> None:
        """Finish what is being merged; pairs that wait are left to their next call."""
        self._pool.shutdown(cancel_futures=True)

    def merge(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Merge (user, session) pairs that were not merged lately, with one read of the store for all.

        A failure of store or journal is logged and does not fail the call; the next call tries again.
        """
        version = self._version()
        new_pairs = [pair for pair in dict.fromkeys(pairs) if self._is_new(*pair)]
        if version is None or not new_pairs:
            return
        try:
            found = self._store.get_many(version, [session for _, session in new_pairs])
            for (user, session), stored in zip(new_pairs, found, strict=True):
                events = unmerged_events(stored)
                if events:
                    self._feedback.copy_session(user, session, events)
                self._remember(user, session)
        except (StoreError, JournalError) as error:
            _log.error("sessions_not_merged", error=str(error))

    def invalidate(self, user_ids: Iterable[str]) -> None:
        """Forget that these sessions were merged: they have new feedback. Other ids are ignored."""
        with self._lock:
            pending = {session for _, session in self._pending}
            for user_id in user_ids:
                self._merged.pop(user_id, None)
                if user_id in pending:
                    self._stale.add(user_id)

    def _submit(self, pairs: Sequence[tuple[str, str]]) -> set["Future[None]"]:
        """Hand pairs to the thread, unless they are there already; return what to wait for."""
        with self._lock:
            found = {self._pending[pair] for pair in pairs if pair in self._pending}
            fresh = [pair for pair in pairs if pair not in self._pending]
            if fresh and len(self._pending) < MAX_PENDING:
                future = self._pool.submit(self._merge_pending, fresh)
                self._pending.update(dict.fromkeys(fresh, future))
                found.add(future)
        return found

    def _merge_pending(self, pairs: Sequence[tuple[str, str]]) -> None:
        try:
            self.merge(pairs)
        except Exception:  # nobody may be waiting for the result
            _log.exception("sessions_not_merged")
        finally:
            with self._lock:
                for pair in pairs:
                    del self._pending[pair]
                self._stale.intersection_update(session for _, session in self._pending)
                self._behind = self._behind and bool(self._pending)

    def _is_new(self, user: str, session: str) -> bool:
        if user == session or not (_is_id(user) and _is_id(session)):
            return False
        with self._lock:
            merged_into, until = self._merged.get(session, ("", 0.0))
        return merged_into != user or until < self._elapsed_s()

    def _remember(self, user: str, session: str) -> None:
        with self._lock:
            if session in self._stale:
                return
            self._merged[session] = (user, self._elapsed_s() + RECHECK_S)
            self._merged.move_to_end(session)
            while len(self._merged) > MAX_PAIRS:
                self._merged.popitem(last=False)


def _is_id(value: str) -> bool:
    try:
        check_id("session_id", value)
    except FieldError:
        return False
    return True
