"""What users took is kept without what was taken back; a server sees the same."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from features.packing import PackedUser, pack_one, unpack_user
from features.taken import day_taken, requests_taken, users_taken
from features.taken_events import packed_taken, unpacked_taken
from recsys.config import default_config

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
SCHEMA = {
    "user_id": pl.String, "item_id": pl.String, "kind": pl.String, "value": pl.Float64,
    "received_at": pl.Datetime("ms", "UTC"), "feedback_id": pl.String, "merged_from": pl.String,
}  # fmt: skip


def feedback(*rows):
    """Rows: (user, item, kind, hours after noon)."""
    full = [
        (u, i, k, None, NOON + timedelta(hours=at), f"{n:03d}", None) for n, (u, i, k, at) in enumerate(rows)
    ]
    return pl.DataFrame(full, schema=SCHEMA, orient="row")


def config_of(history=3, repeat="exclude"):
    config = default_config()
    return config.model_copy(
        update={
            "item_item": config.item_item.model_copy(update={"history": history}),
            "policy": config.policy.model_copy(update={"repeat": repeat, "repeat_kinds": ("rating",)}),
        }
    )


def taken(before, rows, config=None):
    day = day_taken(before, rows.select("user_id"), rows, config or config_of(), {"purchase": "refund"})
    return day


def pairs(table):
    return list(zip(table["user_id"], table["item_id"], table["kind"], strict=True))


def test_the_newest_of_the_taking_kinds_by_user_and_time():
    rows = feedback(
        *(("u", f"i{n}", "click", n) for n in range(5)), ("u", "r", "rating", 9), ("v", "x", "purchase", 0)
    )
    expected = [("u", f"i{n}", "click") for n in (2, 3, 4)] + [("v", "x", "purchase")]
    assert pairs(taken(None, rows)) == expected


def test_kinds_whose_repeats_are_learned_are_kept_too():
    rows = feedback(("u", "r", "rating", 9))
    assert pairs(taken(None, rows, config_of(repeat="learn"))) == [("u", "r", "rating")]
    assert pairs(taken(None, rows)) == []


def test_what_was_taken_back_is_gone_on_the_day_or_later_and_other_users_stay():
    first = taken(
        None, feedback(("u", "a", "purchase", 0), ("u", "b", "purchase", 1), ("v", "a", "purchase", 1))
    )
    rows = feedback(("u", "a", "refund", 24), ("u", "c", "purchase", 25), ("u", "c", "refund", 26))
    assert pairs(taken(first, rows)) == [("u", "b", "purchase"), ("v", "a", "purchase")]


def test_a_packed_user_has_them_and_one_packed_before_has_those_of_the_tail():
    table = taken(None, feedback(("u", "a", "click", 0), ("u", "a", "click", 1), ("u", "b", "purchase", 2)))
    packed = packed_taken(table)["u"]
    at = int(NOON.timestamp() * 1000)
    assert packed == {"click": {"a": [at, at + 3_600_000]}, "purchase": {"b": [at + 7_200_000]}}
    assert unpack_user(pack_one(PackedUser(taken=packed))).taken == packed
    assert unpack_user(b"[{},[],{},{}]").taken == {}
    tail = b'[5,"f1","a","click",null,null],[6,"f2","b","click",null,9],[7,"f3","a","click",null,null]'
    older = unpack_user(b"[{},[" + tail + b"],{},{}]")
    assert older.taken == {"click": {"a": [5, 7]}}, "what stands of the tail, for a bundle of before"


@pytest.mark.parametrize(("history", "expected"), [(9, "aabc"), (2, "bc")])
def test_fresh_events_join_and_the_newest_before_the_instant_are_kept(history, expected):
    packed = {"click": {"a": [1, 2], "late": [9]}, "purchase": {"b": [3]}}
    found = unpacked_taken(packed, [("c", "click", 5), ("d", "click", 9)], history, 9)
    by_time = [item for _, item in sorted(zip(found.at_ms.tolist(), found.item_ids, strict=True))]
    assert "".join(by_time) == expected


def test_what_was_taken_back_makes_room_for_what_was_taken_before():
    """As the night keeps them: it cuts what stands."""
    packed = {"click": {"a": [1], "b": [2], "c": [3]}}
    found = unpacked_taken(packed, [], 2, 9, lambda item, _kind, _at: item != "c")
    assert sorted(found.item_ids) == ["a", "b"]


def test_events_of_one_instant_are_cut_alike_by_night_and_server():
    """In which order they came nobody knows; a server has no ids of them."""
    rows = feedback(*(("u", item, "click", 0) for item in "cab"), ("u", "d", "click", 1))
    night = taken(None, rows)
    everything = packed_taken(taken(None, rows, config_of(history=9)))["u"]
    served = unpacked_taken(everything, [], 3, int(NOON.timestamp() * 1000) + 86_400_000)
    assert night["item_id"].to_list() == ["b", "c", "d"] == sorted(served.item_ids)


def test_rows_of_some_users_come_by_their_place():
    rows = feedback(("u", "a", "click", 2), ("v", "b", "click", 1), ("u", "c", "click", 0))
    snapshot = SimpleNamespace(table=lambda name: taken(None, rows))
    found = users_taken(snapshot, pl.Series(["w", "u"]))
    assert found["user"].to_list() == [1, 1]
    assert found["item_id"].to_list() == ["c", "a"]
    assert np.diff(found["at_ms"]).tolist() == [7_200_000]


@pytest.mark.parametrize("at_once", [1, 2, 9])
def test_a_request_sees_what_its_user_took_until_then(monkeypatch, at_once):
    """Less what was taken back by then, and only what the ingestion lag let through."""
    config = config_of()
    config = config.model_copy(
        update={"features": config.features.model_copy(update={"ingestion_lag": 1_800})}
    )
    before = taken(None, feedback(("u", "a", "purchase", -24), ("u", "b", "purchase", -23)), config)
    today = feedback(
        ("u", "c", "click", 1), ("v", "x", "click", 1), ("u", "a", "refund", 2), ("u", "s", "view", 2),
        ("u", "d", "click", 3), ("u", "e", "click", 4),
    )  # fmt: skip
    tables = {"taken": before, "feedback": today}
    day = SimpleNamespace(table=lambda name, columns=None: tables[name].select(columns or pl.all()))
    monkeypatch.setattr("features.taken.REQUESTS_AT_ONCE", at_once)
    hours = {"early": 1.5, "later": 1.51, "void": 3.0, "full": 5.0, "nobody": 5.0}
    requests = pl.DataFrame(
        {
            "user_id": ["w" if name == "nobody" else "u" for name in hours],
            "shown_at": [NOON + timedelta(hours=at) for at in hours.values()],
        }
    )
    parts = list(requests_taken(day, day, requests, config))
    assert [count for count, _ in parts] == [part.height for part in requests.iter_slices(at_once)]
    lists = [part.filter(pl.col("user") == n) for count, part in parts for n in range(count)]
    seen = {name: part["item_id"].to_list() for name, part in zip(hours, lists, strict=True)}
    assert seen == {
        "early": ["a", "b"],  # the click came 30 minutes before, which is not before it
        "later": ["a", "b", "c"],
        "void": ["b", "c"],
        "full": ["c", "d", "e"],  # three are kept
        "nobody": [],
    }
    assert {part["at_ms"].dtype for part in lists} == {pl.Int64()}
