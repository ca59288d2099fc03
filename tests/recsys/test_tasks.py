"""Tasks: durations, families, and how long a label takes."""

import pytest

from recsys.errors import ConfigError
from recsys.head_kinds import HEAD_KINDS
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
    check_tasks((click, _task("buy", parent="click", transfer_from="click"), _task("s", transfer_from="buy")))


@pytest.mark.parametrize(
    ("low", "high", "step", "levels"), [(1, 5, 1, 5), (0.5, 5, 0.5, 10), (0, 1, 0.1, 11)]
)
def test_levels_of_an_ordinal_value(low, high, step, levels):
    task = _task("a", head="ordinal", low=low, high=high, step=step, space="observed", debias="ips")
    check_tasks((task,))
    assert task.num_levels == levels


def test_the_default_range_is_the_head_kinds():
    assert [_task("a", head=head).step for head in ("regression", "ordinal")] == [0.5, 1.0]
    assert _task("a", head="regression", step=1.0).step == 1.0
    assert _task("a", head="regression", high=600).prediction_range == (1.0, 600.0)
    assert _task("a").prediction_range == (0.0, 1.0)


def test_each_head_kind_has_a_default_loss():
    assert [_task("a", head=kind).loss_name for kind in HEAD_KINDS] == ["bce", "mse", "likelihood"]
    assert _task("a", loss="focal").loss_name == "focal"


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
        ((_task("a", head="regression", low=5, high=5),), "low=5.0 is not below high=5.0"),
        ((_task("a", low=0),), "low = 0.0 is not read by binary heads; .*'regression'"),
        ((_task("a", high=10),), "high = 10.0 is not read by binary heads"),
        ((_task("a", step=0.5),), "step = 0.5 is not read by binary heads; .*'ordinal'"),
        ((_task("a", head="regression", low=0, high=1),), "step = 0.5 is wide for .*such as step = 0.01"),
        ((_task("retrieval"),), "'retrieval' is the name of the two towers' own loss"),
        ((_task("b", transfer_from="a"), _task("a")), "transfer_from 'a' is not a task defined above it"),
        ((_task("a"), _task("b", transfer_from="c")), "'c' is not a task .*known so far: a"),
        ((_task("a", transfer_from="a"),), "transfer_from 'a' is not a task defined above it"),
        ((_task("a", loss="huber"),), "'huber' is no loss of binary heads; known: bce, focal"),
        ((_task("a", head="ordinal", loss="mse"),), "no loss of ordinal heads; known: likelihood"),
        ((_task("a", head="ordinal", step=0.3),), r"step=0.3 does not cut \[1.0, 5.0\]"),
        ((_task("a", head="ordinal", step=8.0),), "does not cut"),
        ((_task("a", head="ordinal", step=0.001),), "into 2 to 100 levels"),
        ((_task("a", debias="ips"),), "needs space = 'observed'"),
    ],
)
def test_families_that_are_refused(tasks, message):
    with pytest.raises(ConfigError, match=message):
        check_tasks(tasks)


@pytest.mark.parametrize("key", ["weight", "learning_rate_scale", "low", "high", "step", "fusion_weight"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_of_a_task_are_finite(key, value):
    with pytest.raises(ValueError, match=key):
        _task("a", head="ordinal", **{key: value})
