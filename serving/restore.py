"""What a server learns from the journal: at its start what was written before, then what other servers write.

start:         LOG/journal ──▶ JournalTail ──▶ restore_from_journal   patches ──▶ overlay
                                                                      feedback ──▶ ids seen, store
each 200 ms:   LOG/journal ──▶ JournalTail ──▶ JournalFollower        patches ──▶ overlay
                                                                      feedback ──▶ ids seen, sessions

Both read one tail: nothing lies between them, and nothing is read twice.
"""

import threading
from collections.abc import Iterable
from pathlib import Path

import structlog

from features.store import Event
from recsys import item_patches
from recsys.errors import StoreError
from serving.catalogue.items import ItemPatch
from serving.catalogue.overlay import ItemOverlay
from serving.feedback import DeltaStore, FeedbackRecorder, SeenFeedbackIds, live_event
from serving.journal_rows import read_feedback, read_item_patches
from serving.journal_tail import JournalTail, NewRows
from serving.session_merger import SessionMerger

TAIL_EVERY_S = 0.2
_BATCH = 5_000
_log = structlog.get_logger(__name__)


def restore_from_journal(
    tail: JournalTail,
    overlay: ItemOverlay,
    seen: SeenFeedbackIds,
    store: DeltaStore | None,
    live_kinds: frozenset[str],
    events_since_ms: int,
) -> None:
    """Replay a journal folder: items and feedback ids into memory, recent live events into the store's delta.

    A store that lost its delta gets it back here. Of a version whose data ends before the tail's `since_ms`,
    `item_patches_since` reads more. Feedback from before it that is sent again counts again until the night's
    cleaning.
    Args: tail: not read before; events_since_ms: events received earlier are not appended to the store.
    """
    events: list[Event] = []
    patches: list[ItemPatch] = []

    def take(found: NewRows) -> None:
        for at_ms, rows in found:
            if rows.table in item_patches.TABLES:
                patches.extend(read_item_patches(at_ms, rows))
                continue
            for event in read_feedback(rows):
                seen.add([event.feedback_id])
                if event.kind in live_kinds and event.received_at_ms >= events_since_ms:
                    events.append(live_event(event))

    tail.read(take)
    overlay.put(_in_order(patches))
    if store is not None:
        _append(store, events)


def item_patches_since(folder: Path, since_ms: int) -> list[ItemPatch]:
    """Read the patches of a journal folder, oldest first, without the files that ended before an instant."""
    patches: list[ItemPatch] = []
    tail = JournalTail(folder, since_ms=since_ms)
    tail.read(lambda found: patches.extend(_patches_of(found)))
    tail.close()
    return _in_order(patches)


class JournalFollower:
    """Takes in what other servers of the same LOG write; safe to call from many threads.

    Args: tail: of the other servers' files, read by `restore_from_journal`.
    """

    def __init__(
        self,
        tail: JournalTail,
        overlay: ItemOverlay,
        feedback: FeedbackRecorder,
        sessions: SessionMerger,
        every_s: float = TAIL_EVERY_S,
    ) -> None:
        self._tail = tail
        self._overlay = overlay
        self._feedback = feedback
        self._sessions = sessions
        self._every_s = every_s
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-tail", daemon=True)

    def start(self) -> None:
        """Start the thread that catches up every 200 ms."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and close the files."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._tail.close()

    def catch_up(self) -> None:
        """Take in all that other servers have written so far.

        An item that cannot be encoded is left out with a log entry, all but its window of availability.
        Raises: OSError when the folder cannot be read.
        """
        self._tail.read(self._take)

    def _take(self, found: NewRows) -> None:
        patches: list[ItemPatch] = []
        for at_ms, rows in found:
            if rows.table in item_patches.TABLES:
                patches.extend(read_item_patches(at_ms, rows))
                continue
            events = list(read_feedback(rows))
            self._feedback.learn(event.feedback_id for event in events)
            self._sessions.invalidate(event.user_id for event in events)
        if patches:
            self._overlay.put(_in_order(patches))

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.catch_up()
                self._failing = False
            except Exception:  # a thread that ends would leave this server behind for good
                if not self._failing:
                    _log.exception("journal_not_followed")
                self._failing = True


def _patches_of(found: NewRows) -> Iterable[ItemPatch]:
    for at_ms, rows in found:
        if rows.table in item_patches.TABLES:
            yield from read_item_patches(at_ms, rows)


def _in_order(patches: Iterable[ItemPatch]) -> list[ItemPatch]:
    """Sort by instant: servers write files of their own at the same time."""
    return sorted(patches, key=lambda patch: patch.at_ms)


def _append(store: DeltaStore, events: list[Event]) -> None:
    try:
        for start in range(0, len(events), _BATCH):
            store.append(events[start : start + _BATCH])
    except StoreError as error:
        _log.error("store_not_restored", error=str(error))
