"""Tasks: durations, families, and how long a label takes."""

import pytest

from recsys.errors import ConfigError
from recsys.tasks import TaskSpec, check_tasks, parse_duration_s

DAY_S = 86_400


def _task(name, **values):
    return TaskSpec(**{"name": name, "feedback": name, "head": "binary", "window": "1h", **values})


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), (" 2h ", 7200), ("7d", 7 * DAY_S), (5, 5)]
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == seconds
    assert _task("a", window=text).window == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "1.5h", "2 weeks", None, -1])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=r"window"):
        _task("a", window=text)


@pytest.mark.parametrize(
    ("window", "lag"), [("0s", 0), ("2h", 0), (2 * 3600 + 1, 1), ("1d", 1), (DAY_S + 1, 2), ("7d", 7)]
)
def test_periods_until_a_window_has_closed(window, lag):
    assert _task("a", window=window).lag_periods(DAY_S) == lag


def test_families_in_order():
    click = _task("click")
    check_tasks((click, _task("buy", parent="click"), _task("return", parent="buy")))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((), "at least one head"),
        ((_task("a"), _task("a")), "'a' is defined twice"),
        ((_task("b", parent="a"), _task("a")), "'a' is not a task defined above it; known so far: none"),
        ((_task("a", parent="a"),), "not a task defined above"),
        ((_task("a", head="regression"), _task("b", parent="a")), "both be binary"),
        ((_task("a"), _task("b", parent="a", head="regression")), "both be binary"),
        ((_task("a", space="observed"), _task("b", parent="a")), "over all impressions"),
        ((_task("a", low=5, high=5),), "low=5.0 is not below high=5.0"),
    ],
)
def test_families_that_are_refused(tasks, message):
    with pytest.raises(ConfigError, match=message):
        check_tasks(tasks)
