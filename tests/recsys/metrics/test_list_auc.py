"""AUC inside lists: by hand, against a slow loop, under clicks that depend on the position, under draws."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import DataError
from recsys.metrics import pooled
from recsys.metrics.columns import Lists, checked, checked_binary
from recsys.metrics.list_auc import (
    aucs_of_lists,
    concordances_of_lists,
    count_lists,
    list_auc,
    list_concordance,
)
from recsys.metrics.metric import RowMetric
from recsys.metrics.table import METRICS


def seeded(seed=0):
    return np.random.default_rng(seed)


@st.composite
def tables(draw):
    """Draw label, prediction on a coarse grid (many ties), weight, list (some rows in none), examination."""
    num_rows = draw(st.integers(1, 40))

    def column(values):
        return np.array(draw(st.lists(values, min_size=num_rows, max_size=num_rows)))

    label, prediction = column(st.integers(0, 1)), column(st.integers(0, 8)) / 8
    weight, group = column(st.integers(0, 3)), column(st.integers(-1, 4))
    weight[0] += 1
    return label, prediction, weight, Lists(group=group, examination=column(st.integers(1, 10)) / 10)


def with_lists(rows, lists):
    return METRICS["list_auc"].check(rows.label, rows.prediction, rows.weight, lists)


def slow_list_auc(label, prediction, weight, lists):
    """Compare every pair of every list, one by one."""
    inside = lists.group >= 0
    looked_at = lists.examination
    rate = (weight * label)[inside].sum() / max((weight * looked_at)[inside].sum(), 1e-300)
    rate = min(rate, 0.95)
    total = mass = 0.0
    for group in set(lists.group[inside]):
        rows = np.flatnonzero(lists.group == group)
        wins = pairs = plain = 0.0
        for i in rows[label[rows] == 1]:
            for j in rows[label[rows] == 0]:
                pair = weight[i] * weight[j]
                plain += pair
                pair *= (1 - rate) / (looked_at[i] * (1 - rate * looked_at[j]))
                pairs += pair
                wins += pair * ((prediction[i] > prediction[j]) + 0.5 * (prediction[i] == prediction[j]))
        if plain:
            total += weight[rows].sum() * wins / plain
            mass += weight[rows].sum() * pairs / plain
    return total / mass if mass else math.nan


def slow_concordance(label, prediction, weight, lists):
    total = mass = 0.0
    for group in set(lists.group[lists.group >= 0]):
        rows = np.flatnonzero(lists.group == group)
        wins = pairs = 0.0
        for n, i in enumerate(rows):
            for j in rows[n + 1 :]:
                pair = weight[i] * weight[j] * (label[i] != label[j])
                agree = np.sign(label[i] - label[j]) * np.sign(prediction[i] - prediction[j])
                pairs, wins = pairs + pair, wins + pair * (1 + agree) / 2
        if pairs:
            total, mass = total + weight[rows].sum() * wins / pairs, mass + weight[rows].sum()
    return total / mass if mass else math.nan


def test_by_hand():
    # list 7: one pair, won, 2 rows; list 3: 2 pairs, one won, 3 rows; list 5: one label; one row in none
    lists = Lists.unplaced([7, 7, 3, 3, 3, 5, 5, -1])
    found = list_auc([1, 0, 0, 1, 0, 0, 0, 1], [0.9, 0.1, 0.2, 0.5, 0.6, 0.4, 0.1, 0.0], lists)
    assert found == (2 * 1 + 3 * 0.5) / 5


def test_lists_are_counted_by_whether_their_labels_differ():
    lists = Lists.unplaced([0, 0, 1, 1, 2, 2, 3, -1, -1])
    label = [1, 0, 1, 1, 0, np.nan, 1, 0, 1]
    assert count_lists(label, lists) == (1, 1), "list 2 has one known label, list 3 one row"


def test_weights_count_inside_the_list_and_between_lists():
    # list 0: pairs 2*1 won and 2*3 tied, so (2 + 3) / 8, weight 6; list 1: lost, weight 3
    lists = Lists.unplaced([0, 0, 0, 1, 1])
    found = list_auc([1, 0, 0, 1, 0], [0.5, 0.3, 0.5, 0.1, 0.2], lists, [2, 1, 3, 1, 2])
    assert found == pytest.approx(6 * 5 / 8 / 9)


def test_concordance_by_hand():
    # list 0: 5 above 3 won, 5 above 1 tied, 3 above 1 lost; list 1: labels alike; list 2: won
    lists = Lists.unplaced([0, 0, 0, 1, 1, 2, 2])
    found = list_concordance([5, 3, 1, 4, 4, 1, 2], [4, 2, 4, 1, 2, 0, 1], lists)
    assert found == pytest.approx((3 * 0.5 + 2 * 1) / 5)


@given(tables())
def test_auc_is_that_of_a_slow_loop(table):
    label, prediction, weight, lists = table
    expected = slow_list_auc(label, prediction, weight, lists)
    assert list_auc(label, prediction, lists, weight) == pytest.approx(expected, nan_ok=True)


@given(tables(), st.integers(0, 99))
def test_concordance_is_that_of_a_slow_loop(table, seed):
    _, prediction, weight, lists = table
    label = seeded(seed).integers(1, 6, prediction.size).astype(float)
    expected = slow_concordance(label, prediction, weight, lists)
    assert list_concordance(label, prediction, lists, weight) == pytest.approx(expected, nan_ok=True)


@given(tables())
def test_of_two_labels_concordance_is_the_auc(table):
    label, prediction, weight, lists = table
    found = list_concordance(label, prediction, lists, weight)
    assert found == pytest.approx(
        list_auc(label, prediction, Lists.unplaced(lists.group), weight), nan_ok=True
    )


def test_on_random_labels_any_order_has_half():
    rng = seeded()
    group = np.repeat(np.arange(5_000), 10)
    label = rng.random(group.size) < rng.uniform(0.02, 0.5, 5_000)[group]
    # who clicks much is predicted to click much: worth much in a pooled AUC, nothing inside a list
    prediction = np.bincount(group, label)[group] + rng.random(group.size)
    assert METRICS["auc"].value(checked_binary(label, prediction)) > 0.7
    assert list_auc(label, prediction, Lists.unplaced(group)) == pytest.approx(0.5, abs=0.01)


def clicks_by_position(seed=0, num_lists=20_000, places=10):
    """Show items in random order; the lower, the less they are looked at, whatever they are worth."""
    rng = seeded(seed)
    position = np.tile(np.arange(1, places + 1), num_lists)
    worth = rng.uniform(0.05, 0.6, position.size)
    examination = position**-0.7
    label = (rng.random(position.size) < worth * examination).astype(float)
    return np.repeat(np.arange(num_lists), places), position, worth, examination, label


def test_a_logging_order_that_knows_nothing_has_half_once_positions_are_weighed():
    group, position, worth, examination, label = clicks_by_position()
    logged = -position.astype(float)
    assert list_auc(label, logged, Lists.unplaced(group)) > 0.65
    lists = Lists(group=group, examination=examination)
    assert list_auc(label, logged, lists) == pytest.approx(0.5, abs=0.006)
    assert list_auc(label, worth, lists) > 0.65, "an order that knows the items keeps what it knows"


def test_lists_without_both_labels_and_rows_without_a_list_count_nothing():
    assert math.isnan(list_auc([1, 0], [0.1, 0.2], Lists.unplaced([-1, -1])))
    assert math.isnan(list_auc([1, 0], [0.1, 0.2], Lists.unplaced([0, 1])))
    assert math.isnan(list_concordance([2, 2], [0.1, 0.2], Lists.unplaced([0, 0])))
    assert math.isnan(list_concordance([2, 1], [0.1, 0.2], Lists.unplaced([-1, -1])))


@pytest.mark.parametrize("name", ["list_auc", "list_concordance"])
def test_a_user_drawn_twice_counts_as_the_doubled_rows(name):
    rng, metric = seeded(), METRICS[name]
    assert isinstance(metric, RowMetric)
    user = rng.permutation(np.repeat(np.arange(30), 12))
    group = 3 * user + rng.integers(0, 3, user.size)
    group[:20] = -1
    label = rng.integers(0, 2, user.size).astype(float)
    prediction, weight = rng.random(user.size).round(1), rng.uniform(0.5, 2, user.size)
    rows = metric.check(label, prediction, weight, Lists.unplaced(group))
    drawn = rng.integers(0, 3, 30).astype(float)
    copies = np.repeat(np.arange(user.size), drawn[user].astype(int))
    # a second copy of a user has lists of its own
    second = np.concatenate([np.arange(n) for n in drawn[user].astype(int)])
    doubled = np.where(group[copies] < 0, -1, group[copies] + 1000 * second)
    again = metric.check(label[copies], prediction[copies], weight[copies], Lists.unplaced(doubled))
    assert metric.statistic(rows, user)(drawn) == pytest.approx(metric.value(again))
    assert metric.statistic(rows, user)(np.ones(30)) == pytest.approx(metric.value(rows))


def test_users_without_a_list_are_drawn_for_nothing():
    rows = METRICS["list_auc"].check([1, 0, 1], [0.9, 0.1, 0.5], None, Lists.unplaced([0, 0, -1]))
    statistic = pooled.list_auc(rows, np.array([0, 0, 1]))
    assert statistic(np.array([1.0, 5.0])) == 1.0
    assert math.isnan(statistic(np.array([0.0, 5.0])))


@pytest.mark.parametrize("measure", [aucs_of_lists, concordances_of_lists])
def test_many_lists_take_no_more_steps_than_few(measure):
    assert steps_of(measure, 20) == steps_of(measure, 2_000)


def steps_of(measure, num_lists):
    """Count the lines of Python that one value takes."""
    rng = seeded()
    label, group = rng.integers(2, size=10 * num_lists), np.repeat(np.arange(num_lists), 10)
    lists = Lists.unplaced(group)
    rows, steps, before = with_lists(checked(label, rng.random(label.size)), lists), [], sys.gettrace()

    def count(frame, event, argument):
        steps.append(event)
        return count

    sys.settrace(count)
    try:
        found = measure(rows)
    finally:
        sys.settrace(before)
    assert found.used.sum() > 0.9 * num_lists
    return len(steps)


def test_rows_without_lists_and_impossible_examination_are_refused():
    with pytest.raises(DataError, match="the rows name no list"):
        METRICS["list_auc"].check([0, 1], [0.1, 0.2])
    with pytest.raises(DataError, match=r"examination is outside \(0, 1\] first at row 1 \(0.0\)"):
        list_auc([0, 1], [0.1, 0.2], Lists(group=np.zeros(2, int), examination=np.array([1.0, 0.0])))
    with pytest.raises(DataError, match="list group has shape"):
        list_auc([0, 1], [0.1, 0.2], Lists.unplaced([0]))
