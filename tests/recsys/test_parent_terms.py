"""A child's sigmoid of its own and its parent's logit: what it minimises, and where it is Platt's alone."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from recsys.calibration import MIN_SLOPE, Platt, fit_platt
from recsys.errors import DataError
from recsys.parent_terms import fit_platt_parent


def children(weights, rows=20_000, seed=0):
    """Labels of a child by its own and its parent's logit, which are alike as a product's are."""
    rng = np.random.default_rng(seed)
    parent = rng.normal(-2, 1, rows)
    own = parent - 1 + rng.normal(0, 0.7, rows)
    a, c = weights
    return own, parent, (rng.random(rows) < expit(a * own + c * parent - 0.5)).astype(float)


def test_it_finds_the_weights_that_made_the_labels():
    found = fit_platt_parent(*children((0.4, 0.5), rows=200_000))
    assert (found.a, found.parent, found.b) == pytest.approx((0.4, 0.5, -0.5), abs=0.06)


@pytest.mark.parametrize("weighted", [False, True])
def test_it_minimises_the_smoothed_log_loss(weighted):
    own, parent, label = children((0.4, 0.5))
    weight = np.random.default_rng(1).uniform(0.2, 5, own.size) if weighted else np.ones(own.size)
    positives, negatives = weight @ label, weight @ (1 - label)
    target = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(theta):
        z = theta[0] * own + theta[1] * parent + theta[2]
        return weight @ (np.logaddexp(0, z) - target * z) / weight.sum()

    best = minimize(loss, [1.0, 0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14})
    found = fit_platt_parent(own, parent, label, weight if weighted else None)
    np.testing.assert_allclose([found.a, found.parent, found.b], best.x, atol=1e-4)


def test_what_the_child_adds_to_its_parent_is_held_back_where_it_is_noise():
    rng = np.random.default_rng(0)
    parent = rng.normal(-2, 1, 50_000)
    own = parent - 2 + rng.normal(0, 0.5, parent.size)  # nothing of it is in the labels
    label = (rng.random(parent.size) < expit(parent - 2)).astype(float)
    found = fit_platt_parent(own, parent, label)
    assert found.a < 0.2 * found.parent
    assert found.a + found.parent == pytest.approx(1, abs=0.05)


def test_a_parent_never_lowers_its_child():
    own, parent, label = children((1.5, -0.6))
    assert fit_platt_parent(own, parent, label) == fit_platt(own, label)


def test_a_child_that_is_wrong_still_orders_equal_parents():
    own, parent, label = children((-0.3, 1.2))
    found = fit_platt_parent(own, parent, label)
    assert found.a == pytest.approx(MIN_SLOPE * found.parent)
    assert found.parent == pytest.approx(0.9, abs=0.1)


@pytest.mark.parametrize("case", ["few positives", "constant parent", "parent and constant"])
def test_it_is_platt_alone_where_two_weights_cannot_be_told(case):
    own, parent, label = children((0.4, 0.5))
    if case == "few positives":
        label = np.where(np.cumsum(label) > 40, 0.0, label)
    elif case == "constant parent":
        parent = np.full(own.size, -1.0)
    else:
        parent = own + 2
    found = fit_platt_parent(own, parent, label)
    assert isinstance(found, Platt)
    assert found == fit_platt(own, label)


def test_rows_that_weigh_nothing_are_left_out():
    own, parent, label = children((0.4, 0.5))
    weight = (np.arange(own.size) % 2).astype(float)
    half = fit_platt_parent(own[1::2], parent[1::2], label[1::2])
    assert fit_platt_parent(own, parent, label, weight) == half


def test_another_number_of_parents_is_refused():
    own, parent, label = children((0.4, 0.5))
    with pytest.raises(DataError, match="pass the same rows"):
        fit_platt_parent(own, parent[1:], label)
