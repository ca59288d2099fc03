"""What a server that starts must remember of its predecessors: items upserted, feedback seen, live events."""

from collections.abc import Iterator
from pathlib import Path

import structlog

from features.store import Event
from recsys.errors import StoreError
from recsys.journal import Rows, replay
from serving.feedback import DeltaStore, SeenIds
from serving.overlay import Overlay
from serving.records import read_item_rows

_TABLES = frozenset({"items", "feedback"})
_BATCH = 5_000
_log = structlog.get_logger(__name__)


def restore(
    folder: Path,
    overlay: Overlay,
    seen: SeenIds,
    store: DeltaStore | None,
    live_kinds: frozenset[str],
    since_ms: int,
) -> None:
    """Replay a journal folder into memory, and into the store's delta what was received since an instant.

    The journal is the durable copy: a store that lost its delta gets it back here.
    """
    events: list[Event] = []
    for at_ms, rows in replay(folder, _TABLES):
        if rows.table == "items":
            overlay.put(read_item_rows(at_ms, rows))
            continue
        for event in _events(rows):
            seen.add([event.feedback_id])
            if event.kind in live_kinds and event.received_at_ms >= since_ms:
                events.append(event)
    if store is not None:
        _append(store, events)


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
