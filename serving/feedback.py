"""Feedback: checked, de-duplicated, journalled, and appended to the online store for the user's next request.

An event is accepted once it is in the journal. The store's delta comes second: when the store is down, the
event still counts from the next night on.
"""

import math
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, Protocol

from features.sessions import marker_id, merged_id
from features.store import Event
from recsys.errors import StoreError
from recsys.schema import SESSION_MERGED
from recsys.tasks import TaskSpec
from serving.clock import OrderedClock
from serving.instants import check_instant
from serving.journal import Journal
from serving.journal_rows import FeedbackEvent, feedback_rows
from serving.request import STORE_UNAVAILABLE, Deadline, FieldError
from serving.request_checks import check_id

# The caller's clock may run ahead of the server's by this; such an event counts as happening now.
SKEW_MS = 5_000
# Of the time that the journal left: the store may wait so long for other writers.
_STORE_SHARE = 0.5
_KIND = re.compile(r"[a-z][a-z0-9_]{0,63}")

Status = Literal["accepted", "duplicate", "rejected"]


class DeltaStore(Protocol):
    """The online store, as far as live events are appended to it."""

    def append(self, events: Iterable[Event], within_s: float | None = None) -> int:
        """Add events; events that it has already are not changed.

        Args: within_s: wait at most so long for other writers.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SentFeedback:
    """One event as the caller sent it."""

    feedback_id: str
    impression_id: str = ""
    user_id: str
    """The session id, when nobody is logged in."""
    session_id: str = ""
    item_id: str
    kind: str
    value: float | None = None
    occurred_at_ms: int | None = None
    """None: now."""
    unreadable: FieldError | None = None
    """What of the caller's message is no value of ours: the event is rejected with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackOutcome:
    """The result of one event."""

    feedback_id: str
    status: Status
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBatch:
    """The results of a batch, in its order."""

    outcomes: tuple[FeedbackOutcome, ...]
    degradation: tuple[str, ...] = ()


class FeedbackRecorder:
    """Records feedback; safe to call from many threads.

    Args: live_kinds: those that change what the next request sees; known_kinds: all that are accepted.
    """

    def __init__(
        self,
        journal: Journal,
        store: DeltaStore | None,
        clock: OrderedClock,
        tasks: Sequence[TaskSpec],
        live_kinds: frozenset[str],
        known_kinds: frozenset[str],
    ) -> None:
        self._journal = journal
        self._store = store
        self._clock = clock
        self._ranges = {t.feedback: (t.low, t.high) for t in tasks if t.kind.label == "value"}
        self._live_kinds = live_kinds
        self._known_kinds = known_kinds
        self._lock = threading.Lock()
        self.seen = SeenFeedbackIds()

    def record(
        self,
        sent: Sequence[SentFeedback],
        *,
        validate_only: bool = False,
        deadline: Deadline | None = None,
    ) -> RecordedBatch:
        """Record a batch.

        Args: deadline: the store waits for other writers within half of what is left of it.
        Raises: JournalError when the journal cannot be written. Nothing was recorded then; send it again.
        """
        now_ms = self._clock.received_ms()
        with self._lock:  # one batch at a time: two batches with the same event write it once
            outcomes, fresh = self._classify(sent, now_ms)
            if not fresh or validate_only:
                return RecordedBatch(outcomes=outcomes)
            self._journal.append(feedback_rows(fresh))
            self.seen.add(event.feedback_id for event in fresh)
        return RecordedBatch(outcomes=outcomes, degradation=self._append_live(fresh, deadline))

    def copy_session(self, user_id: str, session_id: str, events: Sequence[Event]) -> None:
        """Copy a session's events (oldest first) to a user; events copied before are skipped.

        Raises: JournalError when the journal cannot be written; nothing was copied then.
        """
        now_ms = self._clock.received_ms()
        with self._lock:
            copies = [_copy(event, user_id, session_id, now_ms) for event in events]
            copies.append(_marker(events[-1], session_id, now_ms))
            rows = [row for row in copies if row.feedback_id not in self.seen]
            if not rows:
                return
            self._journal.append(feedback_rows(rows))
            self.seen.add(row.feedback_id for row in rows)
        self._append_live(rows)

    def learn(self, feedback_ids: Iterable[str]) -> None:
        """Remember what another server has recorded: sent again to this one, it is a duplicate."""
        with self._lock:
            self.seen.add(feedback_ids)

    def _classify(
        self, sent: Sequence[SentFeedback], now_ms: int
    ) -> tuple[tuple[FeedbackOutcome, ...], list[FeedbackEvent]]:
        outcomes: list[FeedbackOutcome] = []
        fresh: dict[str, FeedbackEvent] = {}
        for event in sent:
            try:
                checked = self._checked(event, now_ms)
            except FieldError as error:
                outcomes.append(
                    FeedbackOutcome(feedback_id=event.feedback_id, status="rejected", reason=str(error))
                )
                continue
            known = event.feedback_id in fresh or event.feedback_id in self.seen
            outcomes.append(
                FeedbackOutcome(feedback_id=event.feedback_id, status="duplicate" if known else "accepted")
            )
            if not known:
                fresh[event.feedback_id] = checked
        return tuple(outcomes), list(fresh.values())

    def _checked(self, event: SentFeedback, now_ms: int) -> FeedbackEvent:
        if event.unreadable is not None:
            raise event.unreadable
        for name in ("feedback_id", "user_id", "item_id"):
            check_id(name, getattr(event, name))
        for name in ("impression_id", "session_id"):
            if getattr(event, name):
                check_id(name, getattr(event, name))
        self._check_kind(event.kind)
        self._check_value(event)
        occurred_at_ms = now_ms if event.occurred_at_ms is None else event.occurred_at_ms
        check_instant("occurred_at", occurred_at_ms)
        if occurred_at_ms > now_ms + SKEW_MS:
            raise FieldError(
                "occurred_at",
                f"{occurred_at_ms} ms is not in the past (now is {now_ms} ms); check the caller's clock",
            )
        return FeedbackEvent(
            feedback_id=event.feedback_id,
            impression_id=event.impression_id or None,
            user_id=event.user_id,
            item_id=event.item_id,
            kind=event.kind,
            value=event.value,
            occurred_at_ms=min(occurred_at_ms, now_ms),
            received_at_ms=now_ms,
        )

    def _check_kind(self, kind: str) -> None:
        """Refuse what no night reads: a misspelt kind would be journalled for ever, and be no label."""
        if kind == SESSION_MERGED:
            raise FieldError("kind", f"{SESSION_MERGED!r} is reserved for the server; send another kind")
        if not _KIND.fullmatch(kind):
            raise FieldError(
                "kind", f"{kind[:40]!r} is not a valid kind; send one like 'click' or 'add_to_cart'"
            )
        if kind not in self._known_kinds:
            known = ", ".join(sorted(self._known_kinds - {SESSION_MERGED}))
            raise FieldError(
                "kind",
                f"{kind!r} is a kind that the config does not name; send one of {known}, or add it to "
                "[serving] more_kinds to keep it for later",
            )

    def _check_value(self, event: SentFeedback) -> None:
        if event.value is not None and not math.isfinite(event.value):
            raise FieldError("value", f"{event.value} is not finite; send a number, or leave it out")
        if event.kind not in self._ranges:
            return
        low, high = self._ranges[event.kind]
        if event.value is None or not low <= event.value <= high:
            raise FieldError(
                "value", f"{event.value} is not a valid {event.kind}; send a number from {low:g} to {high:g}"
            )

    def _append_live(
        self, events: Sequence[FeedbackEvent], deadline: Deadline | None = None
    ) -> tuple[str, ...]:
        live = [live_event(event) for event in events if event.kind in self._live_kinds]
        if self._store is None or not live:
            return ()
        try:
            self._store.append(live, None if deadline is None else _STORE_SHARE * deadline.remaining_s())
        except StoreError:
            return (STORE_UNAVAILABLE,)
        return ()


def live_event(event: FeedbackEvent) -> Event:
    """Convert a journal row to an event of the store's delta."""
    return Event(
        feedback_id=event.feedback_id,
        user_id=event.user_id,
        item_id=event.item_id,
        kind=event.kind,
        value=event.value,
        received_at_ms=event.received_at_ms,
    )


def _copy(event: Event, user_id: str, session_id: str, now_ms: int) -> FeedbackEvent:
    """Copy a session's event to a user. It is received now: no earlier request of the user could see it."""
    return FeedbackEvent(
        feedback_id=merged_id(session_id, event.feedback_id, event.received_at_ms),
        impression_id=None,
        user_id=user_id,
        item_id=event.item_id,
        kind=event.kind,
        value=event.value,
        occurred_at_ms=min(event.received_at_ms, now_ms),
        received_at_ms=now_ms,
        merged_from=session_id,
    )


def _marker(last: Event, session_id: str, now_ms: int) -> FeedbackEvent:
    """Make the session's marker: its events up to this instant now belong to the user."""
    return FeedbackEvent(
        feedback_id=marker_id(session_id, last.received_at_ms),
        impression_id=None,
        user_id=session_id,
        item_id=last.item_id,
        kind=SESSION_MERGED,
        value=float(last.received_at_ms),
        occurred_at_ms=now_ms,
        received_at_ms=now_ms,
        merged_from=session_id,
    )


class SeenFeedbackIds:
    """The latest feedback ids, as 8-byte hashes in two generations; ingest removes older duplicates."""

    def __init__(self, generation: int = 250_000) -> None:
        self._generation = generation
        self._recent: set[int] = set()
        self._previous: set[int] = set()

    def __contains__(self, feedback_id: str) -> bool:
        number = _hash(feedback_id)
        return number in self._recent or number in self._previous

    def add(self, feedback_ids: Iterable[str]) -> None:
        """Remember ids."""
        self._recent.update(map(_hash, feedback_ids))
        if len(self._recent) >= self._generation:
            self._recent, self._previous = set(), self._recent


def _hash(feedback_id: str) -> int:
    return int.from_bytes(blake2b(feedback_id.encode(), digest_size=8).digest())
