"""The plan of a night: which day is for what, and that no task trains on a day twice."""

import json
from datetime import date, timedelta

import pytest

from features.days import Days
from recsys.errors import DataError
from recsys.snapshot import DaySnapshot
from training.night.plan import Lineage, hull, plan_night

FIRST = date(2026, 1, 1)


def going_on(plan, **changes):
    """Give the lineage that a night leaves behind."""
    return Lineage(trained_until=plan.trained_until, cold_since=plan.cold_since, **changes)


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
    assert plan.gated == {t: date(2026, 1, 1) + timedelta(days=i) for t, i in plan.evaluate.items()}
    assert plan.refit == {"click": (8, 9), "purchase": (8, 9), "rating": (7, 8)}
    assert plan.trained_until == {
        "click": date(2026, 1, 8), "purchase": date(2026, 1, 8), "rating": date(2026, 1, 7)
    }  # fmt: skip
    assert plan.train_periods == range(8)
    assert hull(plan.refit) == range(7, 10)


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
    lineage = None
    for count in range(start, 20, step):
        if count - 1 in empty:
            continue  # a closed day has no night
        known = days(count, empty)
        plan = plan_night(known, lagged, lineage)
        for task, (first, last) in plan.train.items():
            trained[task] += [i for i in range(first, last + 1) if i not in empty]
        lineage = going_on(plan)
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
    plan = plan_night(known, lagged, going_on(plan_night(known, lagged, None)))
    assert plan.train_periods == range(0)
    assert plan.evaluate["click"] == 9
    assert plan.trained_until == plan_night(known, lagged, None).trained_until


def _without(plan, *tasks):
    until = {task: day for task, day in plan.trained_until.items() if task not in tasks}
    return Lineage(trained_until=until, cold_since=plan.cold_since)


def test_a_task_that_came_since_catches_up_on_the_days_that_the_others_know(days, lagged):
    """The night of day 9: others know days 0 to 6 and learn day 7; ratings are known up to day 6."""
    before = plan_night(days(9), lagged, None)
    plan = plan_night(days(10), lagged, _without(before, "rating"))
    assert plan.catch_up == {"rating": (0, 6)}
    assert (plan.new_heads, plan.new_inputs) == (("rating",), ())
    assert plan.train["click"] == (7, 7)
    assert plan.train_periods == range(7, 8)
    assert plan.trained_until["rating"] == date(2026, 1, 7)
    plan = plan_night(days(10), lagged, _without(before, "purchase"))
    assert plan.catch_up == {"purchase": (0, 6)}
    assert plan.train == {"click": (7, 7), "purchase": (7, 7), "rating": (6, 6)}


@pytest.mark.parametrize("start", [4, 9])
@pytest.mark.parametrize("new", ["click", "rating"])
@pytest.mark.parametrize("empty", [(), (4, 8)])
def test_a_task_that_came_since_learns_every_day_once(days, lagged, start, new, empty):
    first = plan_night(days(start, empty), lagged, None)
    lineage, trained = _without(first, new), []
    for count in range(start + 1, 14):
        if count - 1 in empty:
            continue
        plan = plan_night(days(count, empty), lagged, lineage)
        for first_day, last in (plan.catch_up.get(new, (0, -1)), plan.train[new]):
            trained += [i for i in range(first_day, last + 1) if i not in empty]
        lineage = going_on(plan)
    closed = [i for i in range(13 - (new == "rating")) if i not in empty]
    assert trained == closed[:-2]


def test_inputs_that_came_since_learn_the_days_that_the_heads_know(days, lagged):
    before = plan_night(days(9), lagged, None)
    came = Lineage(trained_until=before.trained_until, cold_since=before.cold_since, new_inputs=("age",))
    plan = plan_night(days(10), lagged, came)
    assert plan.catch_up == {"click": (0, 6), "purchase": (0, 6), "rating": (0, 5)}
    assert (plan.new_heads, plan.new_inputs) == ((), ("age",))
    assert plan.train == plan_night(days(10), lagged, going_on(before)).train
    assert plan.first == 0, "all that is learned is read whole"
    cold = plan_night(days(10), lagged, Lineage(trained_until={}, cold_since=FIRST, new_inputs=("age",)))
    assert (cold.catch_up, cold.new_inputs) == ({}, ()), "a cold start learns all of it anyway"


def test_a_task_that_came_since_looks_back_as_far_as_a_cold_start(days, lagged, make_config):
    before = plan_night(days(9), lagged, None)
    plan = plan_night(days(10), make_config(training={"max_days": 3}), _without(before, "click"))
    assert plan.catch_up["click"] == (5, 6)


def test_nothing_to_go_on_from_is_a_cold_start(days, lagged):
    before = plan_night(days(9), lagged, None)
    plan = plan_night(days(10), lagged, _without(before, "click", "purchase", "rating"))
    assert (plan.cold, plan.restart, plan.catch_up) == (True, False, {})
    assert plan.train["click"] == (0, 7)


def test_a_restart_comes_after_a_whole_number_of_intervals(days, make_config):
    """Day 4 is cold. With restarts every 3 nights, so are those of days 7 and 10, also when run again."""
    config = make_config(training={"cold_restart": 3})
    lineage, cold = going_on(plan_night(days(5), config, None)), {}
    for count in range(6, 13):
        plan = plan_night(days(count), config, lineage)
        assert plan == plan_night(days(count), config, lineage)
        cold[count - 1] = (plan.cold, plan.restart, plan.cold_since.day - 1)
        lineage = going_on(plan)
    assert [night for night, (is_cold, _, _) in cold.items() if is_cold] == [7, 10]
    assert cold[7] == (True, True, 7)
    assert cold[9] == (False, False, 7)
    plan = plan_night(days(8), config, going_on(plan_night(days(5), config, None)))
    assert plan.train["click"] == (0, 5), "as far back as the first night"


def test_a_restart_that_was_held_is_tried_again_an_interval_later(days, make_config):
    """The lineage stays what it was: nights in between go on from it."""
    config = make_config(training={"cold_restart": 3})
    lineage = going_on(plan_night(days(5), config, None))
    cold = [n for n in range(5, 12) if plan_night(days(n + 1), config, lineage).cold]
    assert cold == [7, 10]
    assert not plan_night(days(8), make_config(), lineage).cold, "0 never restarts"


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
