"""The live path, on a bundle that a night made: seen by the next request, and the same after the night."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from features.build import build_snapshots
from features.online import OnlineFeatures
from features.packing import pack_users
from features.sources.journal import ingest_journal
from features.store import StoredUser
from recsys.log import InteractionLog
from recsys.stages import Stages
from serving.client_values import CallError, Feedback, ItemUpdate

DAY = date(2026, 1, 31)
MIDNIGHT_MS = int(datetime(2026, 2, 1, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def user(night) -> str:
    feedback = InteractionLog(night / "log").read("feedback", date(2026, 1, 29))
    return str(feedback["user_id"].value_counts(sort=True)["user_id"][0])


def requests(server) -> list[dict[str, object]]:
    log = InteractionLog(server._options.log)
    ingest_journal(log, "UTC")
    return log.read("requests", DAY).sort("requested_at", maintain_order=True).to_dicts()


def read(server, user_id, at_ms):
    return server.recommender.engine.model.features.user(user_id, at_ms)


def test_the_very_next_request_sees_what_was_recorded(server, client, clock, user) -> None:
    """Also when both come in one millisecond: the clock of this test stands still between them."""
    answer = client.recommend(user, 20)
    for item in answer.items:
        clock.ms += 5
        event = Feedback.of(item, user, "click")
        assert client.record_feedback([event]).num_accepted == 1
        following = client.recommend(user, 1)
        (at,) = [r["requested_at"] for r in requests(server) if r["request_id"] == following.request_id]
        seen = read(server, user, int(at.timestamp() * 1000))
        assert seen.history[0].feedback_id == event.feedback_id
        assert int(at.timestamp() * 1000) - clock.ms == 1


def test_a_session_has_a_history_and_brings_it_to_its_user(server, client, night) -> None:
    cold = client.recommend("", 5, session_id="sess", debug={"explain": True})
    assert cold.known_user is False
    bought = cold.items[0]
    events = [
        Feedback(user_id="", session_id="sess", item_id=bought.item_id, kind="click"),
        Feedback(user_id="", session_id="sess", item_id=bought.item_id, kind="purchase", value=9.0),
    ]
    assert client.record_feedback(events).num_accepted == 2
    warm = client.recommend("", 5, session_id="sess", debug={"explain": True})
    assert warm.known_user
    assert bought.item_id not in [item.item_id for item in warm.items]
    assert [i.score for i in warm.items] != [i.score for i in cold.items]

    apart = client.recommend("newcomer", 5, debug={"explain": True})
    assert apart.known_user is False
    looked = client.recommend("newcomer", 5, session_id="sess", debug={"do_not_log": True, "explain": True})
    assert looked.known_user is False, "a request that leaves no trace merges nothing"
    together = client.recommend("newcomer", 5, session_id="sess", debug={"explain": True})
    assert together.known_user
    assert bought.item_id not in [item.item_id for item in together.items]
    again = client.rank("newcomer", [bought.item_id], session_id="sess", debug={"explain": True})
    assert again.known_user
    inputs = [read(server, who, MIDNIGHT_MS).inputs for who in ("newcomer", "sess")]
    np.testing.assert_array_equal(inputs[0].history_items, inputs[1].history_items)
    np.testing.assert_array_equal(inputs[0].history_kinds, inputs[1].history_kinds)


def test_feedback_with_both_ids_is_a_login_too(server, client) -> None:
    client.record_feedback([Feedback(user_id="", session_id="s2", item_id="a", kind="click")])
    event = Feedback(user_id="u2", session_id="s2", item_id="b", kind="click")
    assert client.record_feedback([event], validate_only=True).num_accepted == 1
    assert read(server, "u2", MIDNIGHT_MS).history == ()
    assert client.record_feedback([event]).num_accepted == 1
    assert sorted(e.item_id for e in read(server, "u2", MIDNIGHT_MS).history) == ["a", "b"]
    with pytest.raises(CallError, match="session_id"):
        client.recommend("u2", session_id="x" * 300)


def test_items_appear_and_disappear_between_two_calls(server, client, clock, user) -> None:
    first = client.recommend(user, 3)
    top, following = first.items[0], client.recommend(user, 10).items[4]
    now = datetime.fromtimestamp(clock.ms / 1000, UTC)
    gone = [ItemUpdate(item_id=i.item_id, available_until=now) for i in (top, following)]
    assert client.upsert_items(gone) == {}
    missing = {top.item_id, following.item_id}
    assert missing.isdisjoint(i.item_id for i in client.recommend(user, 200).items)
    page = client.recommend(user, 50, page_token=first.next_page_token)
    assert missing.isdisjoint(i.item_id for i in page.items)
    assert missing.isdisjoint(i.item_id for i in client.rank(user, [*missing, first.items[1].item_id]).items)
    back = [replace(update, available_until=None) for update in gone]
    assert client.upsert_items(back, update_mask=["available_until"]) == {}
    again = client.recommend(user, 3).items
    assert [i.item_id for i in again] == [i.item_id for i in first.items]
    assert [i.score for i in again] == pytest.approx([i.score for i in first.items], abs=1e-5)


def play(client, user: str, clock) -> None:
    """A day: duplicates, a rating that changes, a refund, a session that logs in, twice."""
    shown = client.recommend(user, 10).items
    clicks = [Feedback.of(item, user, "click") for item in shown[:4]]
    client.record_feedback([*clicks, clicks[0]])
    assert client.record_feedback(clicks[:2]).num_duplicate == 2
    clock.ms += 5_000
    client.record_feedback(
        [
            Feedback.of(shown[0], user, "purchase", 100.0),
            Feedback.of(shown[1], user, "rating", 2.0),
            Feedback.of(shown[1], user, "rating", 5.0),
        ]
    )
    clock.ms += 5_000
    client.record_feedback([Feedback.of(shown[0], user, "refund", 100.0)])
    anonymous = client.recommend("", 10, session_id="cookie").items
    done = [
        Feedback(user_id="", session_id="cookie", item_id=item.item_id, kind="click")
        for item in anonymous[:3]
    ]
    client.record_feedback(done)
    clock.ms += 5_000
    client.recommend(user, 5, session_id="cookie")
    client.recommend(user, 5, session_id="cookie")
    client.record_feedback([Feedback(user_id="", session_id="cookie", item_id="i000001", kind="purchase")])
    client.recommend("second", 5, session_id="cookie")


def test_the_night_gives_what_the_delta_gave(server, client, clock, user) -> None:
    """Base of the day before ⊕ delta = base of the day, for the user, the session and its second user."""
    play(client, user, clock)
    log = InteractionLog(server._options.log)
    summary = ingest_journal(log, "UTC")
    assert summary.rows["feedback"] == 8 + 3 + 3 + 1 + 1 + 1 + 1
    assert summary.duplicates == {}
    config = server._options.config
    chain = build_snapshots(log, DAY, config, Stages(server._options.runs.parent / "again"))
    live = server.recommender.engine.model.features
    nightly = OnlineFeatures(live.store, live.version, live.config, live.encoder, MIDNIGHT_MS)
    packed = dict(pack_users(chain[-1], live.encoder))
    at_ms = MIDNIGHT_MS + 3_600_000
    for who in (user, "second"):
        before = live.user(who, at_ms)
        after = nightly.assemble(StoredUser(packed[who], ()), who, at_ms)
        assert [e.feedback_id for e in after.history] == [e.feedback_id for e in before.history]
        for part in ("history_items", "history_kinds", "history_ages"):
            np.testing.assert_array_equal(getattr(after.inputs, part), getattr(before.inputs, part))
        assert after.seen["purchase"] == before.seen["purchase"]
    assert len(live.user(user, at_ms).history) >= 9
    assert [e.kind for e in live.user("second", at_ms).history] == ["purchase"]
    assert json.loads(packed["cookie"])[1] == [], "what was merged is not the session's any more"

    counts = chain[-1].table("users").filter(pl.col("user_id") == user)
    yesterday = chain[-2].table("users").filter(pl.col("user_id") == user)
    gained = {c: counts[c][0] - yesterday[c][0] for c in ("click_count_life", "rating_count_life")}
    assert gained == {"click_count_life": 4 + 3, "rating_count_life": 2}
    items = chain[-1].table("item_tile")
    assert items["click_count"].sum() == 4 + 3, "a merged click is its item's once"
