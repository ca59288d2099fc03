"""AUC inside lists by true chances: against every draw of labels, as a limit, and as `list_auc` of labels."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import DataError
from recsys.metrics.columns import Lists
from recsys.metrics.inference import paired_bootstrap
from recsys.metrics.list_auc import list_auc
from recsys.metrics.table import pooled_metric
from recsys.metrics.true_list_auc import true_list_auc


@st.composite
def short_lists(draw):
    """Draw chances (some 0 or 1), predictions with many ties, and lists of up to 6 rows."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    num_rows = sum(sizes)

    def column(values):
        return np.array(draw(st.lists(values, min_size=num_rows, max_size=num_rows)))

    chance = column(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.01, 0.99)))
    group = np.repeat(np.arange(len(sizes)), sizes)
    return chance, column(st.integers(0, 4)).astype(float), np.where(column(st.integers(0, 9)) > 0, group, -1)


def over_all_draws(chance, prediction, group):
    """Weigh the AUC of every list under every draw of its labels by the draw's chance, and by its rows."""
    total = mass = 0.0
    for number in set(group[group >= 0]):
        rows = np.flatnonzero(group == number)
        lists = Lists.unplaced(np.zeros(rows.size, int))
        for labels in itertools.product([0, 1], repeat=rows.size):
            if not 0 < sum(labels) < rows.size:
                continue
            drawn = math.prod(np.where(labels, chance[rows], 1 - chance[rows]))
            total += rows.size * drawn * list_auc(labels, prediction[rows], lists)
            mass += rows.size * drawn
    return total / mass if mass else math.nan


@given(short_lists())
def test_it_is_the_mean_over_all_draws_of_labels(table):
    chance, prediction, group = table
    found = true_list_auc(chance, prediction, Lists.unplaced(group))
    assert found == pytest.approx(over_all_draws(chance, prediction, group), nan_ok=True)


@given(short_lists(), st.integers(0, 99))
def test_of_chances_that_are_labels_it_is_list_auc(table, seed):
    chance, prediction, group = table
    label = (np.random.default_rng(seed).random(chance.size) < chance).astype(float)
    lists = Lists.unplaced(group)
    expected = list_auc(label, prediction, lists)
    assert true_list_auc(label, prediction, lists) == pytest.approx(expected, nan_ok=True)


def pages(num_lists=300, places=10):
    """Give rare chances, an order that knows half of them, and the pages that they are shown on."""
    rng = np.random.default_rng(0)
    logit = rng.normal(-3.5, 1.0, num_lists * places)
    return 1 / (1 + np.exp(-logit)), logit + rng.normal(0, 1.5, logit.size), np.arange(logit.size) // places


def test_the_mean_over_many_draws_of_labels_tends_to_it():
    chance, prediction, group = pages()
    rng, draws = np.random.default_rng(1), 400
    found = [
        list_auc(rng.random(chance.size) < chance, prediction, Lists.unplaced(group)) for _ in range(draws)
    ]
    expected = true_list_auc(chance, prediction, Lists.unplaced(group))
    error = np.std(found) / draws**0.5
    assert error < 0.002 < 0.02 < np.std(found), "one draw of labels says little"
    assert np.mean(found) == pytest.approx(expected, abs=4 * error)
    assert 0.55 < expected < true_list_auc(chance, chance, Lists.unplaced(group)) - 0.05


def test_long_lists_are_exact():
    rng = np.random.default_rng(2)
    prediction, chance = rng.random(400), np.full(400, 0.3)
    assert true_list_auc(chance, prediction, Lists.unplaced(np.zeros(400, int))) == pytest.approx(0.5)
    sure = (rng.random(400) < 0.3).astype(float)
    lists = Lists.unplaced(np.zeros(400, int))
    assert true_list_auc(sure, prediction, lists) == pytest.approx(list_auc(sure, prediction, lists))


def test_no_list_with_both_labels_is_no_figure():
    assert math.isnan(true_list_auc([0.5, 0.5], [0.1, 0.2], Lists.unplaced([-1, -1])))
    assert math.isnan(true_list_auc([0.5, 0.5], [0.1, 0.2], Lists.unplaced([0, 1])))
    assert math.isnan(true_list_auc([1.0, 1.0, 0.0], [0.1, 0.2, 0.3], Lists.unplaced([0, 0, 1])))


def test_rows_are_compared_by_it_over_drawn_users():
    chance, prediction, group = pages()
    user, lists = group // 3, Lists.unplaced(group)
    effect = paired_bootstrap(
        "true_list_auc", chance, prediction, chance, user,
        generator=np.random.default_rng(0), lists=lists, replicates=200,
    )  # fmt: skip
    assert effect.a == pytest.approx(true_list_auc(chance, prediction, lists))
    assert 0 < effect.ci_low < effect.difference < effect.ci_high
    once = pooled_metric("true_list_auc").check(chance, prediction, None, lists)
    drawn = (np.arange(100) < 50).astype(float)
    half = true_list_auc(chance[user < 50], prediction[user < 50], lists.take(user < 50))
    assert pooled_metric("true_list_auc").statistic(once, user)(drawn) == pytest.approx(half)


def test_what_is_no_chance_of_a_row_is_refused():
    with pytest.raises(DataError, match=r"chance is outside \[0, 1\] first at row 1 \(1.5\)"):
        true_list_auc([0.5, 1.5], [0.1, 0.2], Lists.unplaced([0, 0]))
    with pytest.raises(DataError, match="weight is not 1 first at row 0"):
        pooled_metric("true_list_auc").check([0.5, 0.5], [0.1, 0.2], [2, 1], Lists.unplaced([0, 0]))
    with pytest.raises(DataError, match="examination is not 1 first at row 1"):
        true_list_auc([0.5, 0.5], [0.1, 0.2], Lists(group=np.zeros(2, int), examination=np.array([1.0, 0.5])))
