"""What of a session stays with it, and what is its user's, after a login."""

from features.history import EVENT_COLUMNS
from features.sessions import leave_merged, marker_id, merged_id
from recsys.schema import SESSION_MERGED


def _marker(at, until):
    ms = int(until.timestamp() * 1000)
    return {
        "feedback_id": marker_id("s", ms),
        "user_id": "s",
        "kind": SESSION_MERGED,
        "value": float(ms),
        "merged_from": "s",
        "occurred_at": at(hours=1),
    }


def test_a_merged_sessions_events_leave_its_tail_and_nobody_elses(frames, at):
    done = frames.feedback(
        {"feedback_id": "old", "user_id": "s", "occurred_at": at(days=-3)},
        {"feedback_id": "last", "user_id": "s", "occurred_at": at()},
        {"feedback_id": "after", "user_id": "s", "occurred_at": at(minutes=90)},
        {"feedback_id": "other", "user_id": "t", "occurred_at": at()},
        _marker(at, at(hours=-5)),
        _marker(at, at()),
    )
    events = done.select(EVENT_COLUMNS)
    clicks = events.filter(events["kind"] == "click")
    assert leave_merged(clicks, done)["feedback_id"].to_list() == ["after", "other"]
    assert leave_merged(clicks, done.head(4)) is clicks


def test_copies_sort_as_their_events_were_received():
    names = [merged_id("s", "b", 999), merged_id("s", "a", 1_000), merged_id("s", "c", 1_000)]
    assert names == sorted(names)
    assert len({*names, merged_id("t", "b", 999)}) == 4
