"""History: exactly the events a request at that instant would have read."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.history import (
    EVENT_COLUMNS,
    day_events,
    history_bounds,
    join_tail,
    next_tail,
    split_tail,
)
from recsys.schema import INSTANT


def _seen(impressions, events, length=10, lag_s=0):
    """Give each impression's visible feedback ids, oldest first."""
    bounds = history_bounds(impressions, events, length, lag_s)
    ids = events["feedback_id"].to_list()
    return [ids[a:b] for a, b in bounds.iter_rows()]


def _events(frames, *rows):
    return day_events(None, frames.feedback(*rows), ("click",), {})


@pytest.mark.parametrize(("lag_s", "seen"), [(0, ["early", "just"]), (1, ["early"]), (60, [])])
def test_strictly_before_the_request_minus_the_lag_by_receipt(frames, at, lag_s, seen):
    events = _events(
        frames,
        {"feedback_id": "early", "occurred_at": at(seconds=-60)},
        {"feedback_id": "just", "occurred_at": at(seconds=-1)},
        {"feedback_id": "same", "occurred_at": at()},
        {"feedback_id": "late", "occurred_at": at(hours=-3), "received_at": at(seconds=1)},
    )
    assert _seen(frames.impressions({}), events, lag_s=lag_s) == [seen]


def test_another_users_events_are_not_seen(frames, at):
    events = _events(
        frames, *({"feedback_id": u, "user_id": u, "occurred_at": at(hours=-1)} for u in ("a", "b", "c"))
    )
    shown = frames.impressions({"user_id": "b"}, {"user_id": "zz"}, {"user_id": "a"}, {"user_id": ""})
    assert _seen(shown, events) == [["b"], [], ["a"], []]


def test_ties_have_one_order(frames, at):
    rows = [{"feedback_id": name, "occurred_at": at(hours=-1)} for name in "cab"]
    assert _seen(frames.impressions({}), _events(frames, *rows), length=2) == [["b", "c"]]
    assert _seen(frames.impressions({}), _events(frames, *rows[::-1]), length=2) == [["b", "c"]]


def test_only_the_chosen_kinds_enter(frames, at):
    feedback = frames.feedback({"kind": "view", "occurred_at": at(hours=-1)})
    assert day_events(None, feedback, ("click",), {}).is_empty()


def test_without_any_event_every_history_is_empty(frames):
    assert _seen(frames.impressions({}, {}), _events(frames)) == [[], []]


def test_more_users_than_fit_beside_an_instant_in_one_integer(at):
    """2.1 million users, first and last with one event each."""
    names = pl.int_range(2_100_000, eager=True).cast(pl.String).str.zfill(7)
    events = pl.DataFrame(
        {
            "user_id": [names[0], names[-1]],
            "item_id": ["i", "i"],
            "kind": ["click"] * 2,
            "value": [None, None],
            "received_at": pl.Series([at(hours=-1)] * 2).cast(INSTANT),
            "feedback_id": ["first", "last"],
        }
    )
    shown = pl.DataFrame(
        {"user_id": names, "shown_at": pl.Series([at()]).cast(INSTANT).new_from_index(0, len(names))}
    )
    bounds = history_bounds(shown, events, 5, 0)
    counts = (bounds["history_stop"] - bounds["history_start"]).to_numpy()
    np.testing.assert_array_equal(np.flatnonzero(counts), [0, len(names) - 1])


def test_the_tail_holds_each_users_last_events(frames, at):
    events = _events(
        frames,
        *({"feedback_id": f"a{n}", "user_id": "a", "occurred_at": at(minutes=n)} for n in range(4)),
        {"feedback_id": "b0", "user_id": "b", "occurred_at": at()},
    )
    assert next_tail(events, 2)["feedback_id"].to_list() == ["a2", "a3", "b0"]
    assert next_tail(events, 0).is_empty()


MOMENTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(-50, 50)), max_size=25)


def _made(frames, moments, prefix="f"):
    noon = frames.noon
    return frames.feedback(
        *(
            {
                "feedback_id": f"{prefix}{n:02d}",
                "user_id": user,
                "occurred_at": noon + timedelta(minutes=minute),
            }
            for n, (user, minute) in enumerate(moments)
        )
    )


@given(moments=MOMENTS, later=MOMENTS, lag=st.sampled_from([0, 60, 300]))
def test_events_planted_at_or_after_a_request_change_nothing(frames, moments, later, lag):
    shown = frames.impressions({"user_id": "a"}, {"user_id": "b"})
    planted = [(user, abs(minute) - lag // 60) for user, minute in later]
    before = day_events(None, _made(frames, moments), ("click",), {})
    after = day_events(None, pl.concat([_made(frames, moments), _made(frames, planted, "z")]), ("click",), {})
    assert _seen(shown, before, 5, lag) == _seen(shown, after, 5, lag)


@given(moments=MOMENTS, length=st.integers(0, 4))
def test_bounds_are_the_plain_rule(frames, moments, length):
    events = day_events(None, _made(frames, moments), ("click",), {})
    cutoff = frames.noon - timedelta(minutes=1)
    for user, seen in zip(
        "ab", _seen(frames.impressions({"user_id": "a"}, {"user_id": "b"}), events, length, 60), strict=True
    ):
        visible = [
            r["feedback_id"]
            for r in events.iter_rows(named=True)
            if r["user_id"] == user and r["received_at"] < cutoff
        ]
        assert seen == (visible[-length:] if length else [])


@given(moments=MOMENTS, split=st.integers(-50, 0), length=st.integers(1, 4))
def test_tail_and_later_events_give_what_all_events_give(frames, moments, split, length):
    """Yesterday's tail and today's delta are enough, for every request at or after the cut."""
    everything = _made(frames, moments)
    cut = frames.noon + timedelta(minutes=split)
    old, new = everything.filter(pl.col("received_at") < cut), everything.filter(pl.col("received_at") >= cut)
    tail = next_tail(day_events(None, old, ("click",), {}), length)
    shown = frames.impressions({"user_id": "a"}, {"user_id": "b"})
    assert _seen(shown, day_events(tail, new, ("click",), {}), length) == _seen(
        shown, day_events(None, everything, ("click",), {}), length
    )


def _undone(events):
    return dict(events.select("feedback_id", pl.col("void_at").dt.epoch("ms") - NOON_MS).iter_rows())


NOON_MS = 1_767_614_400_000
TAKES_BACK = {"like": "unlike"}


def test_a_reversal_marks_what_came_before_it_and_nothing_else(frames, at):
    rows = [
        {"feedback_id": "before", "kind": "like", "occurred_at": at(hours=-2)},
        {"feedback_id": "same instant", "kind": "like", "occurred_at": at()},
        {"feedback_id": "again", "kind": "like", "occurred_at": at(seconds=1)},
        {"feedback_id": "other item", "kind": "like", "item_id": "j", "occurred_at": at(hours=-2)},
        {"feedback_id": "other user", "kind": "like", "user_id": "v", "occurred_at": at(hours=-2)},
        {"feedback_id": "other kind", "kind": "click", "occurred_at": at(hours=-2)},
        {"feedback_id": "the reversal", "kind": "unlike", "occurred_at": at()},
        {"feedback_id": "a later one", "kind": "unlike", "occurred_at": at(seconds=2)},
    ]
    found = _undone(day_events(None, frames.feedback(*rows), ("like", "click"), TAKES_BACK))
    undone = {"before": 0, "same instant": 0, "again": 2000}
    assert found == {**dict.fromkeys(("other item", "other user", "other kind")), **undone}


def test_a_reversal_reaches_the_tail_of_earlier_days_and_stays(frames, at):
    first = frames.feedback({"feedback_id": "old", "kind": "like", "occurred_at": at(days=-2)})
    undo = frames.feedback({"feedback_id": "undo", "kind": "unlike", "occurred_at": at(days=-1)})
    more = frames.feedback({"feedback_id": "undo it more", "kind": "unlike", "occurred_at": at()})
    tail = day_events(None, first, ("like",), TAKES_BACK)
    tail = day_events(next_tail(tail, 3), undo, ("like",), TAKES_BACK)
    tail = day_events(next_tail(tail, 3), more, ("like",), TAKES_BACK)
    assert _undone(tail) == {"old": -86_400_000}


def test_event_columns_are_what_the_store_holds():

    from features.store import Event

    assert {name.removesuffix("_ms") for name in Event._fields} == set(EVENT_COLUMNS)


def test_a_day_touches_the_tails_of_its_own_users_only(frames, at):
    rows = [{"user_id": u, "feedback_id": u + n, "occurred_at": at(hours=-9)} for u in "dacb" for n in "12"]
    tail = _events(frames, *rows)
    mine, others = split_tail(tail, frames.impressions({"user_id": "b"}), frames.feedback({"user_id": "d"}))
    assert mine["feedback_id"].to_list() == ["b1", "b2", "d1", "d2"]
    assert others["feedback_id"].to_list() == ["a1", "a2", "c1", "c2"]
    assert join_tail(others, mine).equals(tail)
    assert split_tail(None, frames.impressions({}), frames.feedback()) == (None, None)
    assert join_tail(None, mine).equals(mine)
