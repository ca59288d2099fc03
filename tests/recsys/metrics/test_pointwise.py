"""Pointwise metrics: hand-worked numbers, sklearn as oracle, properties, and the refusals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from recsys.errors import ConfigError, DataError
from recsys.metrics.pointwise import (
    auc,
    brier,
    ece,
    log_loss,
    mae,
    normalised_entropy,
    reliability_bins,
    rmse,
)

BINARY_METRICS = [auc, log_loss, normalised_entropy, brier, ece, reliability_bins]
ALL_METRICS = [*BINARY_METRICS, rmse, mae]


@st.composite
def tables(draw, min_rows=1):
    """Draw label, prediction on a coarse grid (many ties) and whole-number weight, one of them positive."""
    num_rows = draw(st.integers(min_rows, 40))

    def column(values):
        return np.array(draw(st.lists(values, min_size=num_rows, max_size=num_rows)))

    label = column(st.integers(0, 1))
    prediction = column(st.integers(0, 8)) / 8
    weight = column(st.integers(0, 3))
    weight[0] += 1
    return label, prediction, weight


def noisy(num_rows=5000, seed=0):
    generator = np.random.default_rng(seed)
    prediction = generator.uniform(0.01, 0.99, num_rows).round(2)
    label = (generator.random(num_rows) < prediction).astype(int)
    return label, prediction, generator.uniform(0.1, 3, num_rows)


def test_auc_by_hand():
    # pairs (positive, negative): .8>.3 win, .8>.5 win, .5>.3 win, .5=.5 half: 3.5 of 4
    assert auc([1, 0, 1, 0], [0.8, 0.3, 0.5, 0.5]) == 3.5 / 4


def test_auc_weighted_by_hand():
    # pair weights: .8>.3 2*1, .8>.5 2*3, .5>.3 1*1, .5=.5 half of 1*3: 10.5 of (2+1)*(1+3)
    assert auc([1, 0, 1, 0], [0.8, 0.3, 0.5, 0.5], [2, 1, 1, 3]) == 10.5 / 12


def test_auc_agrees_with_sklearn():
    label, prediction, weight = noisy()
    assert auc(label, prediction) == pytest.approx(oracle.roc_auc_score(label, prediction), abs=1e-12)
    expected = oracle.roc_auc_score(label, prediction, sample_weight=weight)
    assert auc(label, prediction, weight) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("label", "weight"), [([1, 1], None), ([0, 0], None), ([0, 1], [1, 0])])
def test_auc_is_nan_without_both_classes(label, weight):
    assert math.isnan(auc(label, [0.2, 0.7], weight))


@given(tables())
def test_auc_counts_pairs(table):
    label, prediction, weight = table
    wins = pairs = 0.0
    for i in np.flatnonzero(label == 1):
        for j in np.flatnonzero(label == 0):
            pair = weight[i] * weight[j]
            pairs += pair
            wins += pair * ((prediction[i] > prediction[j]) + 0.5 * (prediction[i] == prediction[j]))
    expected = wins / pairs if pairs else math.nan
    assert auc(label, prediction, weight) == pytest.approx(expected, nan_ok=True)


@given(tables())
def test_auc_knows_only_the_order(table):
    label, prediction, weight = table
    first = auc(label, prediction, weight)
    np.testing.assert_equal(auc(label, np.exp(3 * prediction) - 7, weight), first)
    assert auc(label, -prediction, weight) == pytest.approx(1 - first, nan_ok=True)


def test_log_loss_by_hand():
    assert log_loss([1, 0], [0.5, 0.25], [3, 1]) == pytest.approx((3 * math.log(2) - math.log(0.75)) / 4)


def test_log_loss_of_a_certain_mistake_is_finite():
    assert log_loss([1], [0.0]) == pytest.approx(-math.log(1e-7))
    assert log_loss([0], [1.0]) == pytest.approx(-math.log(1e-7))


def test_log_loss_and_errors_agree_with_sklearn():
    label, prediction, weight = noisy()
    for ours, theirs in [
        (log_loss, oracle.log_loss),
        (brier, oracle.brier_score_loss),
        (rmse, oracle.root_mean_squared_error),
        (mae, oracle.mean_absolute_error),
    ]:
        assert ours(label, prediction) == pytest.approx(theirs(label, prediction))
        expected = theirs(label, prediction, sample_weight=weight)
        assert ours(label, prediction, weight) == pytest.approx(expected)


def test_normalised_entropy_of_the_mean_label_is_one():
    assert normalised_entropy([1, 0, 0, 0], [0.25] * 4) == pytest.approx(1)
    assert normalised_entropy([1, 0], [0.75] * 2, [3, 1]) == pytest.approx(1)
    assert math.isnan(normalised_entropy([0, 0], [0.1, 0.2]))


def test_ece_by_hand():
    # two bins of two rows: |0.5 - 0.15| and |1 - 0.85|
    assert ece([0, 1, 1, 1], [0.1, 0.2, 0.8, 0.9], num_bins=2) == pytest.approx((0.35 + 0.15) / 2)


def test_ece_of_a_constant_prediction_is_the_gap_of_means():
    label = np.arange(100) < 30
    assert ece(label, np.full(100, 0.3)) == pytest.approx(0, abs=1e-12)
    assert ece(label, np.full(100, 0.5)) == pytest.approx(0.2)


@given(tables(), st.integers(1, 20), st.randoms())
def test_ece_ignores_row_order_and_reads_weights_as_copies(table, num_bins, random):
    label, prediction, weight = table
    rows = np.repeat(np.arange(label.size), weight)
    random.shuffle(rows)
    first = ece(label, prediction, weight, num_bins)
    assert ece(label[rows], prediction[rows], num_bins=num_bins) == pytest.approx(first)


@given(tables(), st.integers(1, 20))
def test_reliability_bins_add_up_to_ece(table, num_bins):
    label, prediction, _ = table
    bins = reliability_bins(label, prediction, num_bins=num_bins)
    gaps = [b.count * abs(b.mean_label - b.mean_prediction) for b in bins]
    assert sum(b.count for b in bins) == label.size
    assert sum(gaps) / label.size == pytest.approx(ece(label, prediction, num_bins=num_bins))
    assert [b.mean_prediction for b in bins] == sorted({b.mean_prediction for b in bins})


def test_bins_of_distinct_predictions_hold_equal_mass():
    generator = np.random.default_rng(1)
    bins = reliability_bins(generator.integers(2, size=1500), generator.random(1500))
    assert [b.count for b in bins] == [100] * 15


@pytest.mark.parametrize(("counts", "expected"), [([1, 3], [1, 3]), ([1, 1, 1, 9], [3, 9]), ([5, 1], [5, 1])])
def test_equal_predictions_go_where_their_middle_lies(counts, expected):
    prediction = np.repeat(np.arange(len(counts)) / 10, counts)
    bins = reliability_bins(np.zeros(prediction.size), prediction, num_bins=2)
    assert [b.count for b in bins] == expected


def test_standard_error_of_a_bin_is_the_binomial_one():
    (only,) = reliability_bins([1, 1, 1, 0], [0.7] * 4)
    assert only.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))


@pytest.mark.parametrize("metric", ALL_METRICS)
@pytest.mark.parametrize("bad", ["label", "prediction", "weight"])
def test_nan_is_refused_with_its_row_and_count(metric, bad):
    columns = {"label": [0.0, 1.0, 0.0], "prediction": [0.1, 0.2, 0.3], "weight": [1.0, 1.0, 1.0]}
    columns[bad][1] = columns[bad][2] = math.nan
    with pytest.raises(DataError, match=rf"{bad} is NaN or infinite first at row 1 \(nan\), 2 in all"):
        metric(columns["label"], columns["prediction"], columns["weight"])


@pytest.mark.parametrize("metric", ALL_METRICS)
@pytest.mark.parametrize(
    ("label", "prediction", "weight"),
    [
        ([], [], None),
        ([0, 1], [0.5], None),
        ([[0, 1]], [[0.5, 0.5]], None),
        ([0, 1], [0.5, 0.5], [1]),
        ([0, 1], [0.5, 0.5], [-1, 2]),
        ([0, 1], [0.5, 0.5], [0, 0]),
    ],
)
def test_ill_shaped_columns_are_refused(metric, label, prediction, weight):
    with pytest.raises(DataError):
        metric(label, prediction, weight)


@pytest.mark.parametrize("metric", BINARY_METRICS)
def test_labels_other_than_0_and_1_are_refused(metric):
    with pytest.raises(DataError, match="label is not 0 or 1 first at row 1"):
        metric([0, 0.5], [0.1, 0.2])


@pytest.mark.parametrize("metric", [log_loss, normalised_entropy, brier, ece, reliability_bins])
def test_logits_are_refused_where_probabilities_are_meant(metric):
    with pytest.raises(DataError, match="pass probabilities"):
        metric([0, 1], [-1.2, 0.4])


def test_no_bins_is_a_config_error():
    with pytest.raises(ConfigError, match="num_bins is 0"):
        ece([0, 1], [0.1, 0.2], num_bins=0)
