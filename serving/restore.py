"""Server start: restores upserted items, seen feedback ids and live events from the journal."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog

from features.store import Event
from recsys import item_patches
from recsys.errors import StoreError
from recsys.journal import Rows, replay
from serving.catalogue.items import ItemPatch
from serving.catalogue.overlay import ItemOverlay
from serving.feedback import DeltaStore, SeenFeedbackIds
from serving.journal_rows import read_item_patches

_TABLES = frozenset({*item_patches.TABLES, "feedback"})
_BATCH = 5_000
_log = structlog.get_logger(__name__)


def restore_from_journal(
    folder: Path,
    overlay: ItemOverlay,
    seen: SeenFeedbackIds,
    store: DeltaStore | None,
    live_kinds: frozenset[str],
    since_ms: int,
    events_since_ms: int,
) -> None:
    """Replay a journal folder: items and feedback ids into memory, recent live events into the store's delta.

    A store that lost its delta gets it back here.
    Args: since_ms: files that ended before this instant are not read; for a version whose data ends earlier,
    `item_patches_since` reads more. Feedback from before it that is sent again counts again until the
    night's cleaning; events_since_ms: events received earlier are not appended to the store.
    """
    events: list[Event] = []
    patches: list[ItemPatch] = []
    for at_ms, rows in replay(folder, _TABLES, since_ms):
        if rows.table in item_patches.TABLES:
            patches.extend(read_item_patches(at_ms, rows))
            continue
        for event in _events(rows):
            seen.add([event.feedback_id])
            if event.kind in live_kinds and event.received_at_ms >= events_since_ms:
                events.append(event)
    overlay.put(_in_order(patches))
    if store is not None:
        _append(store, events)


def item_patches_since(folder: Path, since_ms: int) -> list[ItemPatch]:
    """Read the patches of a journal folder, oldest first, without the files that ended before an instant."""
    found = replay(folder, frozenset(item_patches.TABLES), since_ms)
    return _in_order(patch for at_ms, rows in found for patch in read_item_patches(at_ms, rows))


def _in_order(patches: Iterable[ItemPatch]) -> list[ItemPatch]:
    """Sort by instant: servers write files of their own at the same time."""
    return sorted(patches, key=lambda patch: patch.at_ms)


def _events(rows: Rows) -> Iterator[Event]:
    for i in range(rows.num_rows):
        row = {**rows.same, **{name: values[i] for name, values in rows.each.items()}}
        yield Event(
            feedback_id=str(row["feedback_id"]),
            user_id=str(row["user_id"]),
            item_id=str(row["item_id"]),
            kind=str(row["kind"]),
            value=None if row.get("value") is None else float(row["value"]),  # type: ignore[arg-type]
            received_at_ms=int(row["received_at"]),  # type: ignore[arg-type]
        )


def _append(store: DeltaStore, events: list[Event]) -> None:
    try:
        for start in range(0, len(events), _BATCH):
            store.append(events[start : start + _BATCH])
    except StoreError as error:
        _log.error("store_not_restored", error=str(error))
