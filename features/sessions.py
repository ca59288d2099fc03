"""Anonymous sessions: what becomes of a session's history when its user logs in.

A merge writes ordinary feedback rows: one a copied event, the user's own, `merged_from` naming the session;
and one marker, the session's own, that says up to where its events were taken. So the store's delta, the
journal and the nightly tables hold the same thing, and each event goes to one user only.
"""

import polars as pl

from features.packing import unpack_user
from features.store import Event, StoredUser
from recsys.schema import SESSION_MERGED

MAX_EVENTS = 1_000
"""The newest so many events of a session are merged."""


def merged_id(session_id: str, feedback_id: str, received_at_ms: int) -> str:
    """Name the copy of a session's event; copies sort in the order in which the events were received.

    The user is not in the name: an event that two users' logins find is still merged once.
    """
    return f"{received_at_ms:013d}:{feedback_id}@{session_id}"


def marker_id(session_id: str, until_ms: int) -> str:
    """Name a session's marker."""
    return f"{until_ms:013d}:{SESSION_MERGED}@{session_id}"


def leave_merged(events: pl.DataFrame, feedback: pl.DataFrame) -> pl.DataFrame:
    """Leave out a session's events that a login copied: the next base has them with the user only."""
    markers = feedback.filter(pl.col("kind") == SESSION_MERGED)
    if markers.is_empty():
        return events
    until = markers.group_by("user_id").agg(merged_until=pl.col("value").max().cast(pl.Int64))
    known = events.join(until, on="user_id", how="left", maintain_order="left")
    later = pl.col("received_at").dt.epoch("ms") > pl.col("merged_until")
    return known.filter(later.fill_null(value=True)).drop("merged_until")


def unmerged_events(session: StoredUser) -> list[Event]:
    """Give the events of a session that no login has copied, oldest first."""
    base = unpack_user(session.base)
    tail = [e for e in base.tail if e.feedback_id not in base.void_at]  # reversals hold
    until = max((int(e.value or 0) for e in session.events if e.kind == SESSION_MERGED), default=0)
    events = {e.feedback_id: e for e in (*tail, *session.events) if e.kind != SESSION_MERGED}
    open_events = (e for e in events.values() if e.received_at_ms > until)
    return sorted(open_events, key=lambda e: (e.received_at_ms, e.feedback_id))[-MAX_EVENTS:]
