"""Labels: what is credited, until when, and what is not known."""

from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.labels import make_labels
from recsys.tasks import TaskSpec

CLICK = TaskSpec(name="click", feedback="click", head="binary", window="1h")
BUY = TaskSpec(name="buy", feedback="purchase", reversal="refund", head="binary", window="2h", parent="click")
STARS = TaskSpec(name="stars", feedback="rating", head="regression", window="1d", space="observed")
LIKE = TaskSpec(name="like", feedback="like", reversal="unlike", head="binary", window="1h")


def _label(frames, at, task, *feedback, as_of=None, tasks=None):
    """Label one impression shown at noon; feedback rows are of that impression unless they say otherwise."""
    rows = frames.feedback(*({"impression_id": "a:1", "kind": task.feedback, **f} for f in feedback))
    impressions = frames.impressions({"impression_id": "a:1"})
    labels, _ = make_labels(impressions, rows, tasks or [task], as_of or at(days=3))
    return labels[task.label][0]


def test_no_feedback_is_zero_over_all_impressions_and_unknown_in_the_observed_space(frames, at):
    assert _label(frames, at, CLICK) == 0
    assert _label(frames, at, STARS) is None


def test_feedback_in_the_window_is_credited(frames, at):
    assert _label(frames, at, CLICK, {"occurred_at": at(minutes=59)}) == 1


@pytest.mark.parametrize(
    ("minutes", "label"),
    [(0, 1), (60, 1), (60.001, 0), (-0.001, 0)],
    ids=["at once", "last", "after", "before"],
)
def test_edges_of_the_window(frames, at, minutes, label):
    assert (
        _label(frames, at, CLICK, {"occurred_at": at(minutes=minutes), "received_at": at(hours=2)}) == label
    )


def test_an_open_window_is_null_even_when_feedback_has_come(frames, at):
    click = {"occurred_at": at(minutes=1)}
    assert _label(frames, at, CLICK, click, as_of=at(minutes=59)) is None
    assert _label(frames, at, CLICK, as_of=at(minutes=59)) is None
    assert _label(frames, at, CLICK, click, as_of=at(minutes=60)) == 1
    assert _label(frames, at, STARS, {"value": 4.0}, as_of=at(hours=23)) is None


def test_feedback_received_at_or_after_the_instant_is_not_seen(frames, at):
    late = {"occurred_at": at(minutes=1), "received_at": at(hours=5)}
    assert _label(frames, at, CLICK, late, as_of=at(hours=5)) == 0
    assert _label(frames, at, CLICK, late, as_of=at(hours=5, seconds=1)) == 1


def test_organic_feedback_is_never_credited(frames, at):
    assert _label(frames, at, CLICK, {"impression_id": None, "occurred_at": at(minutes=1)}) == 0
    assert _label(frames, at, CLICK, {"impression_id": "other:1", "occurred_at": at(minutes=1)}) == 0


def test_a_reversal_takes_the_label_back(frames, at):
    done = {"occurred_at": at(minutes=1)}
    undone = {"kind": "unlike", "occurred_at": at(minutes=5)}
    assert _label(frames, at, LIKE, done, undone) == 0
    assert _label(frames, at, LIKE, done, undone, {"occurred_at": at(minutes=9)}) == 1
    unseen = {**undone, "received_at": at(hours=4)}
    assert _label(frames, at, LIKE, done, unseen, as_of=at(hours=3)) == 1
    elsewhere = {**undone, "impression_id": "other:1"}
    assert _label(frames, at, LIKE, done, elsewhere) == 1


def test_a_child_is_child_and_parent_and_contradictions_are_counted(frames, at):
    shown = frames.impressions(
        *({"impression_id": f"{name}:1"} for name in ("both", "child", "parent", "none"))
    )
    feedback = frames.feedback(
        {"impression_id": "both:1"},
        {"impression_id": "both:1", "kind": "purchase"},
        {"impression_id": "child:1", "kind": "purchase"},
        {"impression_id": "parent:1"},
    )
    labels, contradictions = make_labels(shown, feedback, [CLICK, BUY], at(days=1))
    assert labels["label_click"].to_list() == [1, 0, 1, 0]
    assert labels["label_buy"].to_list() == [1, 0, 0, 0]
    assert contradictions == {"buy": 1}


def test_a_child_is_unknown_while_its_parent_is(frames, at):
    slow = CLICK.model_copy(update={"window": 10 * 3600})
    bought = {"kind": "purchase", "occurred_at": at(minutes=1)}
    assert _label(frames, at, BUY, bought, tasks=[slow, BUY], as_of=at(hours=3)) is None


def test_values_are_clipped_and_the_last_one_counts(frames, at):
    assert _label(frames, at, STARS, {"value": 9.0}) == 5
    assert _label(frames, at, STARS, {"value": -1.0}) == 1
    first, last = {"value": 2.0, "occurred_at": at(hours=1)}, {"value": 4.5, "occurred_at": at(hours=2)}
    assert _label(frames, at, STARS, last, first) == 4.5


def test_values_of_one_instant_go_in_the_order_of_their_ids(frames, at):
    a, b = {"feedback_id": "a", "value": 1.0}, {"feedback_id": "b", "value": 3.0}
    assert _label(frames, at, STARS, a, b) == _label(frames, at, STARS, b, a) == 3


def test_a_value_that_is_null_says_nothing(frames, at):
    assert _label(frames, at, STARS, {"value": None}) is None
    earlier = {"value": 2.0, "occurred_at": at(hours=1)}
    assert _label(frames, at, STARS, earlier, {"value": None, "occurred_at": at(hours=2)}) == 2


def test_labels_keep_the_order_of_impressions(frames, at):
    shown = frames.impressions(*({"impression_id": f"{n}:1"} for n in (3, 1, 2)))
    labels, _ = make_labels(shown, frames.feedback({"impression_id": "1:1"}), [CLICK], at(days=1))
    assert labels["impression_id"].to_list() == ["3:1", "1:1", "2:1"]
    assert labels["label_click"].to_list() == [0, 1, 0]
    assert labels.schema["label_click"] == pl.Float32


@given(
    occurred=st.integers(-10, 90),
    delay=st.integers(0, 300),
    as_of=st.integers(0, 400),
    kind=st.sampled_from(["click", "view"]),
)
def test_the_rule_in_one_line(frames, occurred, delay, as_of, kind):
    """Minutes after noon: null while open, else 1 exactly when a click in the window has been received."""
    minute = lambda m: frames.noon + timedelta(minutes=m)  # noqa: E731
    feedback = {"kind": kind, "occurred_at": minute(occurred), "received_at": minute(occurred + delay)}
    expected = (
        None if as_of < 60 else float(kind == "click" and 0 <= occurred <= 60 and occurred + delay < as_of)
    )
    assert _label(frames, lambda **_: None, CLICK, feedback, as_of=minute(as_of)) == expected
