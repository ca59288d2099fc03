"""Calibration: closed forms and an independent minimiser as oracles, exact JSON, and order kept."""

import json
import math
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from recsys.calibration import (
    MIN_SLOPE,
    Affine,
    Calibrator,
    Identity,
    Isotonic,
    Platt,
    PlattItems,
    PlattParent,
    SamplingShift,
    correct_sampling,
    fit_affine,
    fit_isotonic,
    fit_isotonic_probability,
    fit_platt,
    keep_child_below_parent,
)
from recsys.errors import ConfigError, DataError
from recsys.metrics.columns import effective_rows

ANY_CALIBRATOR = TypeAdapter(Calibrator)
EXAMPLES = [
    Identity(),
    SamplingShift(b=-1 / 3),
    Platt(a=0.1 + 0.2, b=-1 / 3),
    PlattItems(a=0.1 + 0.2, b=-1 / 3, items={"item_click_rate_life": -1 / 7}),
    PlattParent(a=0.1 + 0.2, parent=2 / 7, b=-1 / 3),
    Isotonic(x=(0.1, 1 / 3, 0.9), y=(0.0, 2 / 7, 2 / 7)),
    Affine(scale=1 / 3, offset=math.pi, low=1, high=5),
]
finite = st.floats(-1e6, 1e6)


def clicks(num_rows=20_000, a=0.6, b=-1.0, seed=0):
    generator = np.random.default_rng(seed)
    z = generator.normal(-1, 2, num_rows)
    return z, (generator.random(num_rows) < expit(a * z + b)).astype(int)


def test_platt_finds_the_slope_and_intercept_that_made_the_labels():
    fitted = fit_platt(*clicks())
    assert (fitted.a, fitted.b) == pytest.approx((0.6, -1.0), abs=0.06)


@pytest.mark.parametrize("scale", [1, 1e-3, 100])
@pytest.mark.parametrize("weighted", [False, True])
def test_platt_minimises_the_smoothed_log_loss(scale, weighted):
    z, label = clicks(2000)
    weight = np.random.default_rng(1).uniform(0.2, 5, z.size) if weighted else np.ones(z.size)
    positives, negatives = weight @ label, weight @ (1 - label)
    target = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(theta):
        at = theta[0] * z + theta[1]
        return weight @ (np.logaddexp(0, at) - target * at) / weight.sum()

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14})
    fitted = fit_platt(z * scale + 3, label, weight if weighted else None)
    assert fitted.a * scale == pytest.approx(best.x[0], abs=1e-5)
    assert fitted.b + 3 * fitted.a == pytest.approx(best.x[1], abs=1e-5)


def test_a_child_and_its_parent_are_weighed_and_joined():
    calibrator = PlattParent(a=0.5, parent=0.25, b=-1.0)
    own, parent = np.array([1.0, -3.0], np.float32), np.array([2.0, 0.0], np.float32)
    joined = calibrator.joined(own, parent)
    np.testing.assert_array_equal(joined, np.array([1.0, -1.5], np.float32))
    assert joined.dtype == np.float32
    np.testing.assert_allclose(calibrator.apply(joined), expit([0.0, -2.5]), rtol=1e-6)


def test_platt_of_perfectly_separated_labels_is_finite_by_smoothing():
    z = np.linspace(-1, 1, 400)
    fitted = fit_platt(z, z > 0)
    assert 1 < fitted.a < 1e4
    assert fitted.apply(z).mean() == pytest.approx(0.5)


def test_platt_keeps_the_order_when_labels_run_against_the_logits():
    z, label = clicks(2000)
    fitted = fit_platt(-z, label)
    assert fitted.a == MIN_SLOPE
    assert fitted.apply(-z).mean() == pytest.approx(label.mean(), abs=1e-3)


@pytest.mark.parametrize("positives", [0, 1, 49])
@pytest.mark.parametrize("flip", [False, True])
def test_platt_with_few_rows_of_a_class_moves_the_intercept_only(positives, flip):
    z, _ = clicks(500)
    label = (np.arange(500) < positives) ^ flip
    fitted = fit_platt(z, label)
    rows = {1: label.sum(), 0: (~label).sum()}
    target = np.where(label, (rows[1] + 1) / (rows[1] + 2), 1 / (rows[0] + 2))
    assert fitted.a == 1
    assert fitted.apply(z).mean() == pytest.approx(target.mean(), abs=1e-9)


def test_platt_fits_a_slope_from_fifty_rows_of_each_class():
    z, _ = clicks(500)
    assert fit_platt(z, np.arange(500) < 50).a != 1


@pytest.mark.parametrize("value", [0.1, -7.3, 0.0])
def test_platt_of_a_constant_logit_is_the_base_rate(value):
    label = np.arange(1000) < 300
    fitted = fit_platt(np.full(1000, value), label)
    assert fitted.a == 1
    assert fitted.apply([value])[0] == pytest.approx(0.3, abs=1e-3)


def test_platt_reads_no_slope_off_rounding():
    label = np.arange(1000) < 300
    assert fit_platt(np.where(label, 0.1 + 0.2, 0.3), label).a == 1


def test_platt_ignores_rows_without_weight():
    z, label = clicks(1000)
    wild = np.concatenate([z, np.full(100, 50.0)]), np.concatenate([label, np.zeros(100)])
    weight = np.repeat([1.0, 0.0], [1000, 100])
    one, two = fit_platt(z, label), fit_platt(*wild, weight)
    assert (two.a, two.b) == pytest.approx((one.a, one.b), abs=1e-9)


@pytest.mark.parametrize("spread", [0.0, 1.0], ids=["constant", "slope"])
def test_platt_of_drawn_negatives_gives_the_rate_of_the_stream(spread):
    """500 positives, and 500 negatives that stand for 2,500 each: counted as rows they gave six times it."""
    label = np.repeat([1.0, 0.0], 500)
    z = np.random.default_rng(0).normal(spread * label, 1 if spread else 0)
    weight = np.where(label == 1, 1.0, 2500.0)
    rate = 500 / (500 + 500 * 2500)
    found = fit_platt(z, label, weight).apply(z)
    assert np.average(found, weights=weight) == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize("times", [2, 7])
@pytest.mark.parametrize(
    "fit", [fit_platt, fit_isotonic, fit_isotonic_probability, partial(fit_affine, low=-9, high=9)]
)
def test_a_row_of_weight_k_is_k_rows(fit, times):
    z, label = clicks(2000)
    copies = np.where(label == 1, 1, times)
    weighted, copied = fit(z, label, weight=copies), fit(z.repeat(copies), label.repeat(copies))
    grid = np.linspace(z.min(), z.max(), 50)
    np.testing.assert_allclose(weighted.apply(grid), copied.apply(grid), rtol=1e-7, atol=1e-12)


def test_what_weighs_most_is_few_rows_however_heavy():
    """60 negatives of which one weighs almost all are evidence of one, and no slope is fitted."""
    z, _ = clicks(560)
    label = (np.arange(560) >= 60).astype(float)
    weight = np.where(np.arange(560) == 0, 1e6, 1.0)
    assert fit_platt(z, label).a != 1
    assert fit_platt(z, label, weight).a == 1
    assert effective_rows(weight[:60]) == pytest.approx(1, rel=1e-3)
    assert effective_rows(np.full(60, 0.1)) == pytest.approx(60)
    assert effective_rows(np.zeros(3)) == 0


@given(st.floats(1e-3, 1e3), finite, st.lists(finite, min_size=2, max_size=9))
def test_platt_never_reorders_and_stays_a_probability(a, b, values):
    found = Platt(a=a, b=b).apply(np.sort(values))
    assert (np.diff(found) >= 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_platt_by_hand_and_in_the_tails():
    found = Platt(a=2, b=1).apply([-0.5, 0.0, -350.0, 350.0])
    np.testing.assert_allclose(found, [0.5, 1 / (1 + math.exp(-1)), math.exp(-699), 1], rtol=1e-12)


def test_isotonic_by_hand():
    # 0.2 and 0.3 violate, so they pool to (1 + 0) / 2
    fitted = fit_isotonic([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1])
    assert fitted == Isotonic(x=(0.1, 0.2, 0.3, 0.4), y=(0, 0.5, 0.5, 1))
    np.testing.assert_allclose(fitted.apply([0.0, 0.15, 0.25, 0.35, 0.9]), [0, 0.25, 0.5, 0.75, 1])


@given(st.lists(st.tuples(finite, st.integers(0, 1), st.integers(1, 3)), min_size=1, max_size=30))
def test_isotonic_agrees_with_sklearn_and_never_falls(rows):
    prediction, label, weight = np.array(rows, dtype=float).T
    fitted = fit_isotonic(prediction, label, weight)
    expected = IsotonicRegression(out_of_bounds="clip").fit(prediction, label, weight)
    grid = np.sort(np.concatenate([prediction, [-2e6, 0, 2e6]]))
    np.testing.assert_allclose(fitted.apply(grid), expected.predict(grid), atol=1e-9)
    assert (np.diff(fitted.apply(grid)) >= 0).all()


def test_an_isotonic_probability_is_never_0_or_1():
    label = [0, 0, 1, 0, 1, 1]
    fitted = fit_isotonic_probability(np.arange(6) / 10, label)
    # 2 negatives first: 0 becomes 1 / (3 + 2); the middle pools to 1/2; 2 positives last: 1 becomes 4 / 5
    np.testing.assert_allclose(fitted.apply(np.arange(6) / 10), [0.2, 0.2, 0.5, 0.5, 0.8, 0.8])
    heavy = fit_isotonic_probability(np.arange(6) / 10, label, [10, 10, 1, 10, 1, 1])
    assert heavy.apply([0.0])[0] == pytest.approx(1 / 32)
    with pytest.raises(DataError, match="not 0 or 1"):
        fit_isotonic_probability([0.1, 0.2], [0, 2])


def test_affine_by_hand():
    # least squares through (1, 2), (2, 2), (3, 5): slope 3/2, mean 3 at 2
    fitted = fit_affine([1, 2, 3], [2, 2, 5], low=1, high=5)
    assert (fitted.scale, fitted.offset) == pytest.approx((1.5, 0))
    np.testing.assert_allclose(fitted.apply([0.0, 2.0, 9.0]), [1, 3, 5])


def test_affine_weights_are_copies():
    one = fit_affine([1, 2, 3], [2, 2, 5], low=1, high=5, weight=[1, 3, 0])
    two = fit_affine([1, 2, 2, 2], [2, 2, 2, 2], low=1, high=5)
    assert (one.scale, one.offset) == pytest.approx((two.scale, two.offset))


def test_affine_falls_back_to_a_shift_or_the_least_slope():
    assert fit_affine([3.1] * 3, [1, 2, 3], low=1, high=5).apply([3.1])[0] == pytest.approx(2)
    assert fit_affine([3.1] * 3, [1, 2, 3], low=1, high=5).scale == 1
    assert fit_affine([1, 2, 3], [3, 2, 1], low=1, high=5).scale == MIN_SLOPE


def test_sampling_correction_is_he_et_al():
    p = np.array([0.1, 0.5, 0.9])
    corrected = expit(correct_sampling(logit(p), 0.25))
    np.testing.assert_allclose(corrected, p / (p + (1 - p) / 0.25))
    np.testing.assert_array_equal(correct_sampling([1.5, -2.0], [1, 1]), [1.5, -2.0])


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, math.nan])
def test_rates_outside_0_and_1_are_refused(rate):
    with pytest.raises(DataError, match="sampling rate at row 1"):
        correct_sampling([0.0, 0.0], [0.5, rate])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_child_never_passes_its_parent(pairs):
    child, parent = np.array(pairs).T
    kept = keep_child_below_parent(child, parent)
    assert (kept <= parent).all()
    np.testing.assert_array_equal(kept[child <= parent], child[child <= parent])


def test_child_and_parent_of_other_shapes_are_refused():
    with pytest.raises(DataError, match="pass the same rows"):
        keep_child_below_parent([0.1, 0.2], 0.1)


@pytest.mark.parametrize("calibrator", EXAMPLES, ids=lambda c: c.kind)
def test_json_keeps_every_bit(calibrator):
    text = ANY_CALIBRATOR.dump_json(calibrator)
    back = ANY_CALIBRATOR.validate_json(text)
    assert back == calibrator
    assert ANY_CALIBRATOR.dump_json(back) == text


@given(st.floats(1e-300, 1e300), st.floats(-1e300, 1e300))
def test_json_keeps_every_bit_of_any_float(a, b):
    back = ANY_CALIBRATOR.validate_json(Platt(a=a, b=b).model_dump_json())
    assert (back.a, back.b) == (a, b)


@pytest.mark.parametrize("calibrator", EXAMPLES, ids=lambda c: c.kind)
@pytest.mark.parametrize("given_type", [np.float32, np.float64])
def test_apply_keeps_type_and_shape(calibrator, given_type):
    values = np.array([[0.2, 0.4, 0.7]], dtype=given_type)
    found = calibrator.apply(values)
    assert (found.dtype, found.shape) == (given_type, (1, 3))
    exact = calibrator.apply(values.astype(np.float64))
    np.testing.assert_array_equal(found, exact.astype(given_type))


@pytest.mark.parametrize("calibrator", EXAMPLES, ids=lambda c: c.kind)
def test_unknown_keys_and_assignment_are_refused(calibrator):
    fields = json.loads(calibrator.model_dump_json())
    with pytest.raises(ValidationError, match="Extra inputs"):
        ANY_CALIBRATOR.validate_python(fields | {"temperature": 2})
    with pytest.raises(ValidationError, match="frozen"):
        calibrator.kind = "platt"


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "beta"},
        {"kind": "platt", "a": 0, "b": 0},
        {"kind": "platt", "a": math.inf, "b": 0},
        {"kind": "isotonic", "x": (), "y": ()},
        {"kind": "isotonic", "x": (1, 2), "y": (1,)},
        {"kind": "isotonic", "x": (1, 1), "y": (0, 1)},
        {"kind": "isotonic", "x": (1, 2), "y": (1, 0)},
        {"kind": "affine", "scale": -1, "offset": 0, "low": 1, "high": 5},
        {"kind": "affine", "scale": 1, "offset": 0, "low": 5, "high": 5},
    ],
)
def test_impossible_calibrators_are_refused(fields):
    with pytest.raises(ValidationError):
        ANY_CALIBRATOR.validate_python(fields)


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic, lambda x, y: fit_affine(x, y, low=1, high=5)])
def test_fits_refuse_nan_and_empty_columns(fit):
    with pytest.raises(DataError, match="prediction is NaN or infinite first at row 1"):
        fit([0.0, math.nan], [0, 1])
    with pytest.raises(DataError, match="no rows"):
        fit([], [])


def test_affine_refuses_an_empty_range():
    with pytest.raises(ConfigError, match="low must be below high"):
        fit_affine([1], [1], low=5, high=5)


def test_importing_loads_neither_scipy_nor_sklearn():
    code = "import recsys.calibration, sys; print(sorted({'scipy', 'sklearn', 'torch'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
