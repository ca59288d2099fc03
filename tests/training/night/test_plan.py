"""The plan of a night: which period is for what, and that none is learnt twice."""

from datetime import date, timedelta

import pytest

from recsys.errors import DataError
from training.night.plan import plan_night

FIRST = date(2026, 1, 1)


def _days(count):
    return [FIRST + timedelta(days=n) for n in range(count)]


@pytest.fixture
def lagged(make_config):
    """Give a config whose click has lag 0 and whose rating has lag 1."""
    return make_config()


def test_lag_0_and_1_by_hand(lagged):
    plan = plan_night(_days(10), lagged, None)  # the night of period 9
    assert plan.train == {"click": (0, 7), "purchase": (0, 7), "rating": (0, 6)}
    assert plan.calibrate == {"click": 8, "purchase": 8, "rating": 7}
    assert plan.evaluate == {"click": 9, "purchase": 9, "rating": 8}
    assert plan.refit == {"click": (8, 9), "purchase": (8, 9), "rating": (7, 8)}
    assert plan.trained_until == 7
    assert plan.train_periods == range(8)
    assert plan.refit_periods == range(7, 10)


def test_no_period_has_two_uses_for_a_task(lagged):
    plan = plan_night(_days(10), lagged, None)
    for task, (first, last) in plan.train.items():
        used = [*range(first, last + 1), plan.calibrate[task], plan.evaluate[task]]
        assert len(set(used)) == len(used)
        assert plan.refit[task] == (plan.calibrate[task], plan.evaluate[task])


@pytest.mark.parametrize("start", [4, 7])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_warm_nights_learn_every_period_once_per_task(lagged, start, step):
    """Nights may be skipped: the next one catches up."""
    trained = {"click": [], "purchase": [], "rating": []}
    until = None
    for count in range(start, 20, step):
        days = _days(count)
        plan = plan_night(days, lagged, until)
        for task, (first, last) in plan.train.items():
            trained[task] += range(first, last + 1)
        until = days[plan.trained_until]
    last = max(range(start, 20, step)) - 1
    assert trained == {
        "click": list(range(last - 1)),
        "purchase": list(range(last - 1)),
        "rating": list(range(last - 2)),
    }


def test_the_same_night_again_has_nothing_to_learn(lagged):
    days = _days(10)
    plan = plan_night(days, lagged, days[plan_night(days, lagged, None).trained_until])
    assert plan.train_periods == range(0)
    assert plan.evaluate["click"] == 9


def test_a_cold_start_looks_back_no_further_than_it_may(make_config):
    plan = plan_night(_days(10), make_config(training={"max_days": 3}), None)
    assert plan.train["click"] == (5, 7)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_periods_say_how_many_are_needed(lagged, count):
    with pytest.raises(DataError, match=rf"the log has {count} P1D period\(s\).*a night needs 4"):
        plan_night(_days(count), lagged, None)


def test_the_fewest_periods(lagged):
    plan = plan_night(_days(4), lagged, None)
    assert plan.train == {"click": (0, 1), "purchase": (0, 1), "rating": (0, 0)}


def test_a_window_of_weeks_with_monthly_periods(make_config):
    task = {"name": "click", "feedback": "click", "head": "binary", "window": "30d"}
    plan = plan_night(_days(8), make_config(task=[task], feature=[], period="P1M"), None)
    assert plan.evaluate == {"click": 5}, "30 days may reach two months ahead of February"
