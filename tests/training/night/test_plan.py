"""The plan of a night: which day is for what, and that no task trains on a day twice."""

import json
from datetime import date, timedelta

import pytest

from features.days import Days
from recsys.errors import DataError
from recsys.snapshot import DaySnapshot
from training.night.plan import plan_night

FIRST = date(2026, 1, 1)


@pytest.fixture
def lagged(make_config):
    """Give a config whose click has lag 0 and whose rating has lag 1."""
    return make_config()


@pytest.fixture
def days(tmp_path, lagged):
    """Give so many days, of which some have no impressions."""

    def make(count, empty=(), config=lagged):
        snapshots = []
        for n in range(count):
            folder = tmp_path / str(n)
            folder.mkdir(exist_ok=True)
            manifest = {"rows": {"impressions": 0 if n in empty else 10}}
            (folder / "manifest.json").write_text(json.dumps(manifest))
            snapshots.append(DaySnapshot(FIRST + timedelta(days=n), folder))
        return Days.of(snapshots, config)

    return make


def test_lag_0_and_1_by_hand(days, lagged):
    plan = plan_night(days(10), lagged, None)  # the night of period 9
    assert plan.train == {"click": (0, 7), "purchase": (0, 7), "rating": (0, 6)}
    assert plan.calibrate == {"click": 8, "purchase": 8, "rating": 7}
    assert plan.evaluate == {"click": 9, "purchase": 9, "rating": 8}
    assert plan.refit == {"click": (8, 9), "purchase": (8, 9), "rating": (7, 8)}
    assert plan.trained_until == {
        "click": date(2026, 1, 8), "purchase": date(2026, 1, 8), "rating": date(2026, 1, 7)
    }  # fmt: skip
    assert plan.train_periods == range(8)
    assert plan.refit_periods == range(7, 10)


def test_no_period_has_two_uses_for_a_task(days, lagged):
    plan = plan_night(days(10), lagged, None)
    for task, (first, last) in plan.train.items():
        used = [*range(first, last + 1), plan.calibrate[task], plan.evaluate[task]]
        assert len(set(used)) == len(used)
        assert plan.refit[task] == (plan.calibrate[task], plan.evaluate[task])


@pytest.mark.parametrize("start", [4, 7])
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("empty", [(), (8,), (5, 12, 13)])
def test_warm_nights_train_on_every_day_once_per_task(days, lagged, start, step, empty):
    """Nights may be skipped, and a day may be empty: the next night catches up."""
    trained = {"click": [], "purchase": [], "rating": []}
    until = None
    for count in range(start, 20, step):
        if count - 1 in empty:
            continue  # a closed day has no night
        known = days(count, empty)
        plan = plan_night(known, lagged, until)
        for task, (first, last) in plan.train.items():
            trained[task] += [i for i in range(first, last + 1) if i not in empty]
        until = plan.trained_until
    last = max(n for n in range(start, 20, step) if n - 1 not in empty) - 1
    filled = [i for i in range(last + 1) if i not in empty]
    assert trained["click"] == trained["purchase"] == filled[:-2]
    assert trained["rating"] == [i for i in filled if i < last][:-2]


def test_a_closed_day_is_passed_over_and_lags_count_it(days, lagged):
    """The night after a closed day 8: what is a day old is the closed day, whose ratings nobody waits for."""
    plan = plan_night(days(10, empty=(8,)), lagged, None)
    assert plan.evaluate == {"click": 9, "purchase": 9, "rating": 7}
    assert plan.calibrate == {"click": 7, "purchase": 7, "rating": 6}
    assert plan.train == {"click": (0, 6), "purchase": (0, 6), "rating": (0, 5)}


def test_the_same_night_again_has_nothing_to_train_on(days, lagged):
    known = days(10)
    plan = plan_night(known, lagged, plan_night(known, lagged, None).trained_until)
    assert plan.train_periods == range(0)
    assert plan.evaluate["click"] == 9
    assert plan.trained_until == plan_night(known, lagged, None).trained_until


def test_a_task_that_came_since_begins_with_the_others_new_days(days, lagged):
    until = dict(plan_night(days(9), lagged, None).trained_until)
    until.pop("rating")
    assert plan_night(days(10), lagged, until).train["rating"] == (6, 6)


def test_a_cold_start_looks_back_no_further_than_it_may(days, make_config):
    plan = plan_night(days(10), make_config(training={"max_days": 3}), None)
    assert plan.train["click"] == (5, 7)


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_days_say_how_many_are_needed(days, lagged, count):
    with pytest.raises(DataError, match=rf"needs 3 days with impressions.*has {min(count, 2)} such P1D"):
        plan_night(days(count), lagged, None)


def test_too_few_days_name_the_empty_ones(days, lagged):
    with pytest.raises(DataError, match=r"night of 2026-01-04.*'rating'.*without impressions: 2026-01-02"):
        plan_night(days(4, empty=(1,)), lagged, None)


def test_the_fewest_periods(days, lagged):
    plan = plan_night(days(4), lagged, None)
    assert plan.train == {"click": (0, 1), "purchase": (0, 1), "rating": (0, 0)}


def test_a_window_of_weeks_with_monthly_periods(days, make_config):
    task = {"name": "click", "feedback": "click", "head": "binary", "window": "30d"}
    config = make_config(task=[task], feature=[], period="P1M")
    plan = plan_night(days(8, config=config), config, None)
    assert plan.evaluate == {"click": 5}, "30 days may reach two months ahead of February"
