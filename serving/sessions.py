"""Login: what was done in an anonymous session becomes the user's, once.

A call that carries a user_id and a session_id says that they are one person. The session's events, base and
delta, are copied as the user's own feedback (see `features.sessions`): journalled first, then shown. Pairs
seen lately cost no look at the store; feedback of the session on its own makes the next call look again.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog

from features.sessions import unmerged_events
from features.store import StoredUser
from recsys.errors import JournalError, StoreError
from serving.checks import check_id
from serving.feedback import FeedbackDesk
from serving.request import FieldError

MAX_PAIRS = 65_536
LOOK_AGAIN_S = 60.0
"""Feedback that another server got for the session is found after this."""
_log = structlog.get_logger(__name__)


class SessionStore(Protocol):
    """Where sessions are read."""

    def get_many(self, version: str, user_ids: Sequence[str]) -> list[StoredUser]:
        """Read base and delta of users, in order."""


class Sessions:
    """Merges sessions into users; safe to call from many threads.

    Args: version: names the live version, whose base is read; None: there is none, so merging waits for one.
    """

    def __init__(
        self,
        desk: FeedbackDesk,
        store: SessionStore,
        version: Callable[[], str | None],
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._store = store
        self._version = version
        self._elapsed_s = elapsed_s
        self._lock = threading.Lock()
        self._joined: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def join(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Merge (user, session) pairs that are new; one read of the store for all of them.

        What cannot be read or written now is tried again with the next call; the caller's call goes on.
        """
        version = self._version()
        fresh = [pair for pair in dict.fromkeys(pairs) if self._is_new(*pair)]
        if version is None or not fresh:
            return
        try:
            found = self._store.get_many(version, [session for _, session in fresh])
            for (user, session), stored in zip(fresh, found, strict=True):
                events = unmerged_events(stored)
                if events:
                    self._desk.merge(user, session, events)
                self._remember(user, session)
        except (StoreError, JournalError) as error:
            _log.error("sessions_not_merged", error=str(error))

    def heard_of(self, user_ids: Iterable[str]) -> None:
        """Note that there is feedback of these; a session among them has something to merge again."""
        with self._lock:
            for user_id in user_ids:
                self._joined.pop(user_id, None)

    def _is_new(self, user: str, session: str) -> bool:
        if user == session or not (_is_id(user) and _is_id(session)):
            return False
        with self._lock:
            known, until = self._joined.get(session, ("", 0.0))
        return known != user or until < self._elapsed_s()

    def _remember(self, user: str, session: str) -> None:
        with self._lock:
            self._joined[session] = (user, self._elapsed_s() + LOOK_AGAIN_S)
            self._joined.move_to_end(session)
            while len(self._joined) > MAX_PAIRS:
                self._joined.popitem(last=False)


def _is_id(value: str) -> bool:
    try:
        check_id("session_id", value)
    except FieldError:
        return False
    return True
