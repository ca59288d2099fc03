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


def _likes(frames, at, shown, *feedback):
    """Label impressions of one item, shown to u at noon unless they say otherwise; feedback is in minutes."""
    rows = frames.feedback(*({**f, "occurred_at": at(minutes=f["occurred_at"])} for f in feedback))
    labels, _ = make_labels(frames.impressions(*shown), rows, [LIKE], at(days=1))
    return labels["label_like"].to_list()


def _event(minute, kind="like", impression=None, **columns):
    return {"occurred_at": minute, "kind": kind, "impression_id": impression, **columns}


TWO = ({"impression_id": "a:1"}, {"impression_id": "b:1"})
BOTH = (_event(1, impression="a:1"), _event(3, impression="b:1"))


@pytest.mark.parametrize(
    ("reversals", "labels"),
    [
        ([4], [1, 0]),
        ([2], [0, 1]),
        ([0], [1, 1]),
        ([3], [1, 0]),
        ([4, 5], [0, 0]),
        ([2, 4], [0, 0]),
        ([4, 5, 6], [0, 0]),
    ],
    ids=["the latest", "then the latest", "none yet", "at once", "one each", "each its own", "none is left"],
)
def test_a_reversal_without_an_impression_takes_back_the_latest_label(frames, at, reversals, labels):
    """As the refunds of a shop, which name the user and the item."""
    undone = (_event(minute, "unlike") for minute in reversals)
    assert _likes(frames, at, TWO, *BOTH, *undone) == labels


def test_a_reversal_without_an_impression_is_of_its_user_and_item(frames, at):
    for other in ({"user_id": "v"}, {"item_id": "j"}):
        assert _likes(frames, at, TWO, *BOTH, _event(4, "unlike", **other)) == [1, 1]
    again = (_event(4, "unlike"), _event(5, impression="b:1"))
    assert _likes(frames, at, TWO, *BOTH, *again) == [1, 1], "feedback after its reversal counts again"


def test_a_reversal_finds_what_no_named_one_took_back_and_no_organic_feedback(frames, at):
    named = _event(4, "unlike", "b:1")
    assert _likes(frames, at, TWO, *BOTH, named, _event(5, "unlike")) == [0, 0]
    assert _likes(frames, at, TWO, *BOTH, _event(4), _event(5, "unlike")) == [1, 0], "organic: no label"


def test_a_later_days_label_is_the_latest(frames, at):
    """The other day's impression is not among those labelled; its feedback is known."""
    assert _likes(frames, at, TWO[:1], *BOTH, _event(4, "unlike")) == [1]


@given(st.lists(st.tuples(st.integers(0, 59), st.sampled_from(["a:1", "b:1", "c:1", None])), max_size=12))
def test_reversals_without_impressions_are_matched_as_brackets(frames, events):
    """Likes name an impression; reversals (None) name none. The reference walks through time with a stack."""
    shown = ["a:1", "b:1", "c:1"]
    standing: list[tuple[int, str]] = []
    undone_at = dict.fromkeys(shown, -1)
    for minute, impression in sorted(events, key=lambda e: (e[0], e[1] is None, events.index(e))):
        if impression is not None:
            standing.append((minute, impression))
        elif standing:
            undone_at[standing.pop()[1]] = minute
    expected = [float(any(m > undone_at[i] for m, name in events if name == i)) for i in shown]
    minute = lambda m: {"occurred_at": frames.noon + timedelta(minutes=m)}  # noqa: E731
    rows = [
        {"feedback_id": f"{n:02}", "impression_id": i, "kind": "unlike" if i is None else "like", **minute(m)}
        for n, (m, i) in enumerate(events)
    ]
    impressions = frames.impressions(*({"impression_id": i} for i in shown))
    labels, _ = make_labels(impressions, frames.feedback(*rows), [LIKE], frames.noon + timedelta(days=1))
    assert labels["label_like"].to_list() == expected


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
