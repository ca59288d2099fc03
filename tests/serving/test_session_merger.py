"""A session's events become its user's once: in order, across restarts, and never a second user's."""

import json
import threading
from pathlib import Path

import pytest

from features.sessions import unmerged_events
from features.store import Event, StoredUser
from features.store.sqlite import SQLiteStore
from recsys.config import StoreConfig, default_config
from recsys.errors import StoreError
from recsys.journal import files, read
from recsys.schema import SESSION_MERGED
from serving.catalogue.overlay import ItemOverlay
from serving.clock import OrderedClock
from serving.feedback import FeedbackRecorder, SentFeedback
from serving.journal import Journal
from serving.journal_tail import JournalTail
from serving.restore import restore_from_journal
from serving.session_merger import RECHECK_S, SessionMerger

NIGHT = 1_772_000_000_000
KINDS = frozenset({"click", "purchase", SESSION_MERGED})


class CountingStore(SQLiteStore):
    """Counts reads; `down` makes them fail."""

    reads = 0
    down = False

    def get_many(self, version, user_ids, within_s=None):
        self.reads += 1
        if self.down:
            raise StoreError("down")
        return super().get_many(version, user_ids)


class Shop:
    """Recorder, journal, store and session merger of one server; `restart` makes the next one."""

    def __init__(self, folder: Path, standing_clock) -> None:
        self.folder, self.clock = folder, standing_clock
        self.clock.ms = NIGHT + 50_000
        self.boots = 0
        self.restart()

    def restart(self) -> None:
        self.boots += 1
        name = f"s{self.boots}"
        self.journal = Journal(self.folder / "journal", name, self.clock.now_ms, rotate_s=3600)
        self.store = CountingStore(self.folder / "store", StoreConfig())
        tail = [
            [NIGHT - 500, "t1", "i1", "click", None, None],
            [NIGHT - 400, "t2", "i2", "purchase", 5.0, None],
        ]
        self.store.publish("v1", [("sess", json.dumps([{}, tail, {}, {}]).encode())], {}, 1)
        feedback = FeedbackRecorder(
            self.journal, self.store, OrderedClock(self.clock), default_config().tasks, KINDS, KINDS
        )
        restore_from_journal(
            JournalTail(self.folder / "journal"),
            ItemOverlay(),
            feedback.seen,
            self.store,
            KINDS,
            events_since_ms=0,
        )
        self.feedback = feedback
        self.seconds = 0.0
        self.merger = SessionMerger(feedback, self.store, lambda: "v1", lambda: self.seconds)

    def click(self, user: str, *items: str) -> None:
        for item in items:
            self.clock.ms += 10
            sent = SentFeedback(feedback_id=f"{user}-{item}", user_id=user, item_id=item, kind="click")
            assert self.feedback.record([sent]).outcomes[0].status == "accepted"
        self.merger.invalidate([user])

    def events(self, user: str) -> list[Event]:
        return list(self.store.get_many("v1", [user])[0].events)

    def items(self, user: str) -> list[str]:
        return [event.item_id for event in self.events(user) if event.kind != SESSION_MERGED]

    def rows(self) -> list[dict[str, object]]:
        records = [record for path in files(self.folder / "journal") for record in read(path).records]
        return [
            {name: values[i] for name, values in rows.each.items()}
            for record in records
            for rows in record.rows
            for i in range(rows.num_rows)
        ]


@pytest.fixture
def shop(tmp_path, clock) -> Shop:
    return Shop(tmp_path, clock)


def test_base_and_delta_of_the_session_become_the_users_in_their_order(shop) -> None:
    shop.click("u", "i7")
    shop.click("sess", "i9", "i8")
    shop.clock.ms += 60_000
    shop.merger.merge([("u", "sess")])
    assert shop.items("u") == ["i7", "i1", "i2", "i9", "i8"]
    assert shop.items("sess") == ["i9", "i8"]
    copies = [row for row in shop.rows() if row["merged_from"] and row["kind"] != SESSION_MERGED]
    assert {(row["user_id"], row["merged_from"], row["impression_id"]) for row in copies} == {
        ("u", "sess", None)
    }
    assert {row["received_at"] for row in copies} == {shop.clock.ms}
    assert [row["occurred_at"] for row in copies][:2] == [NIGHT - 500, NIGHT - 400]
    assert [row["value"] for row in copies] == [None, 5.0, None, None]


def test_merging_again_does_nothing_also_after_a_restart_without_its_store(shop) -> None:
    shop.click("sess", "i9")
    shop.merger.merge([("u", "sess")])
    before = (shop.rows(), shop.events("u"), shop.events("sess"))
    shop.seconds += 2 * RECHECK_S
    shop.merger.merge([("u", "sess"), ("u", "sess")])
    assert (shop.rows(), shop.events("u"), shop.events("sess")) == before
    shop.journal.close()
    shop.restart()
    shop.merger.merge([("u", "sess")])
    shop.journal.close()
    for file in (shop.folder / "store").glob("delta*"):
        file.unlink()
    shop.restart()
    shop.merger.merge([("u", "sess")])
    assert (shop.rows(), shop.events("u"), shop.events("sess")) == before


def test_of_two_users_in_turn_the_second_gets_what_came_after_the_first(shop) -> None:
    shop.click("sess", "i9")
    shop.merger.merge([("anna", "sess")])
    shop.merger.merge([("ben", "sess")])
    assert shop.items("ben") == []
    shop.click("sess", "i5")
    shop.merger.merge([("ben", "sess")])
    assert shop.items("anna") == ["i1", "i2", "i9"]
    assert shop.items("ben") == ["i5"]
    shop.merger.merge([("anna", "sess")])
    assert shop.items("anna") == ["i1", "i2", "i9"]


def test_a_known_pair_costs_no_read_until_there_is_news(shop) -> None:
    shop.merger.merge([("u", "sess")])
    reads = shop.store.reads
    for _ in range(10):
        shop.merger.merge([("u", "sess")])
    assert shop.store.reads == reads
    shop.click("sess", "i5")
    shop.merger.merge([("u", "sess"), ("u", "other"), ("v", "another")])
    assert shop.store.reads == reads + 1
    assert shop.items("u")[-1] == "i5"
    shop.store.append(
        [
            Event(
                feedback_id="elsewhere",
                user_id="sess",
                item_id="i6",
                kind="click",
                value=None,
                received_at_ms=shop.clock.ms + 5,
            )
        ]
    )
    shop.merger.merge([("u", "sess")])
    assert shop.items("u")[-1] == "i5"
    shop.seconds += RECHECK_S + 1
    shop.clock.ms += 10
    shop.merger.merge([("u", "sess")])
    assert shop.items("u")[-1] == "i6"


@pytest.mark.parametrize("pair", [("u", ""), ("", "sess"), ("sess", "sess"), ("u", "x" * 300), ("u", "a\nb")])
def test_what_is_no_pair_is_left_alone(shop, pair) -> None:
    shop.merger.merge([pair])
    assert shop.store.reads == 0


def test_a_dead_store_stops_no_call_and_is_asked_again(shop) -> None:
    shop.store.down = True
    shop.merger.merge([("u", "sess")])
    assert shop.rows() == []
    shop.store.down = False
    shop.merger.merge([("u", "sess")])
    assert shop.items("u") == ["i1", "i2"]


def test_without_a_bundle_merging_waits_for_one(shop) -> None:
    waiting = SessionMerger(shop.feedback, shop.store, lambda: None)
    waiting.merge([("u", "sess")])
    assert shop.store.reads == 0


def test_the_marker_is_nobody_elses_to_send(shop) -> None:
    sent = SentFeedback(feedback_id="f", user_id="sess", item_id="i", kind=SESSION_MERGED, value=9e15)
    (outcome,) = shop.feedback.record([sent]).outcomes
    assert outcome.status == "rejected"
    assert "is reserved for the server" in outcome.reason


def test_what_was_taken_back_before_the_night_is_not_merged() -> None:
    tail = [[5, "bought", "i1", "purchase", None, 7], [6, "kept", "i2", "purchase", None, None]]
    session = StoredUser(json.dumps([{}, tail, {}, {}]).encode(), ())
    assert [e.feedback_id for e in unmerged_events(session)] == ["kept"]


def test_an_event_in_base_and_delta_is_one() -> None:
    event = Event(feedback_id="t1", user_id="s", item_id="i1", kind="click", value=None, received_at_ms=5)
    base = json.dumps([{}, [[5, "t1", "i1", "click", None, None]], {}, {}]).encode()
    assert [e.feedback_id for e in unmerged_events(StoredUser(base, (event,)))] == ["t1"]
    assert unmerged_events(StoredUser(None, ())) == []


def test_what_a_marker_covers_is_taken() -> None:
    """Whatever a server remembers of ids: the marker alone says so."""

    def event(name: str, at: int, kind: str = "click", value: float | None = None) -> Event:
        return Event(feedback_id=name, user_id="s", item_id="i", kind=kind, value=value, received_at_ms=at)

    marker = event("m", 90, SESSION_MERGED, 20.0)
    held = (event("a", 10), event("b", 20), event("c", 30), marker)
    assert [e.feedback_id for e in unmerged_events(StoredUser(None, held))] == ["c"]


def test_feedback_that_comes_while_its_session_is_merged_is_merged_next(shop, monkeypatch) -> None:
    reading, free, get_many = threading.Event(), threading.Event(), shop.store.get_many

    def slow(version, user_ids):
        found = get_many(version, user_ids)
        reading.set()
        free.wait(60)
        return found

    monkeypatch.setattr(shop.store, "get_many", slow)
    shop.merger.merge_within([("u", "sess")], 0.0)
    reading.wait(60)
    shop.click("sess", "i9")
    free.set()
    shop.merger.close()  # waits until it is merged
    monkeypatch.undo()
    assert shop.items("u") == ["i1", "i2"]
    shop.merger.merge([("u", "sess")])
    assert shop.items("u") == ["i1", "i2", "i9"]
