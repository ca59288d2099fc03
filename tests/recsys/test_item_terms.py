"""A term of the item: an independent minimiser as oracle, a prior on its weights, order, Platt's limits."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from recsys import item_terms
from recsys.calibration import MIN_SLOPE, Platt, fit_platt, smoothed_targets
from recsys.item_terms import PRIOR_PRECISION, ItemNumbers, fit_platt_items, item_weights
from recsys.metrics.columns import checked_binary, effective_rows
from recsys.metrics.pointwise import auc, log_loss

NAMES = ("rate", "mean")


def shown(size=4000, num_items=200, effect=0.8, seed=0):
    """Show items at random: the head knows nothing of their first number."""
    rng = np.random.default_rng(seed)
    items = ItemNumbers(
        names=NAMES,
        values_IF=rng.normal(size=(num_items, 2)).astype(np.float32),
        row_N=rng.integers(num_items, size=size),
    )
    logit = rng.normal(-1, 1, size)
    truth = 0.7 * logit + effect * items.values_IF[items.row_N, 0]
    return logit, (rng.random(size) < expit(truth)).astype(float), items


def fitted(logit, label, items, weight):
    """Minimise the penalised log loss in another way."""
    rows = checked_binary(label, logit, weight)
    highest, lowest = smoothed_targets(rows)
    target = np.where(label == 1, highest, lowest)
    share = rows.weight / rows.weight.sum()
    prior = PRIOR_PRECISION / effective_rows(rows.weight)
    numbers = items.values_IF[items.row_N].astype(np.float64)

    def loss(theta):
        z = theta[0] * logit + numbers @ theta[1:3] + theta[3]
        return share @ (np.logaddexp(0, z) - target * z) + prior / 2 * (theta[1:3] @ theta[1:3])

    return minimize(loss, np.array([1.0, 0, 0, 0]), method="BFGS", options={"gtol": 1e-9}).x


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("piece", [4000, 333])
def test_it_minimises_the_log_loss_with_a_prior_on_its_weights(weighted, piece, monkeypatch):
    monkeypatch.setattr(item_terms, "_PIECE_ROWS", piece)
    logit, label, items = shown()
    weight = np.random.default_rng(1).integers(0, 4, logit.size).astype(float) if weighted else None
    found = fit_platt_items(logit, label, items, weight)
    expected = fitted(logit, label, items, np.ones(logit.size) if weight is None else weight)
    assert found.a == pytest.approx(expected[0], abs=1e-5)
    assert [found.a * found.items[name] for name in NAMES] == pytest.approx(expected[1:3], abs=1e-5)
    assert found.b == pytest.approx(expected[3], abs=1e-5)


def test_what_the_head_does_not_know_of_items_mends_order_and_log_loss():
    (logit, label, items), (later, wanted, others) = shown(seed=0), shown(seed=1)
    found, plain = fit_platt_items(logit, label, items), fit_platt(logit, label)
    moved = found.apply(later + others.term(item_weights(found)))
    assert auc(wanted, moved) > auc(wanted, later) + 0.03
    assert log_loss(wanted, moved) < log_loss(wanted, plain.apply(later)) - 0.01
    assert moved.mean() == pytest.approx(wanted.mean(), abs=0.02)


def test_little_is_believed_of_few_rows():
    few, many = (fit_platt_items(*shown(size=n, num_items=20)).items["rate"] for n in (500, 100_000))
    assert 0 < few < 0.25 * many
    assert many == pytest.approx(0.8 / 0.7, rel=0.15), "of 100,000 rows the prior takes a tenth"


def test_rows_that_weigh_nothing_do_not_count():
    logit, label, items = shown()
    weight = np.random.default_rng(1).integers(0, 2, logit.size).astype(float)
    kept = weight > 0
    assert fit_platt_items(logit, label, items, weight) == fit_platt_items(
        logit[kept], label[kept], items.take(kept)
    )


@pytest.mark.parametrize("case", ["few positives", "equal logits", "turned logits", "no numbers"])
def test_where_platt_fits_no_slope_there_is_no_term(case):
    logit, label, items = shown()
    if case == "few positives":
        label[np.flatnonzero(label)[49:]] = 0
    elif case == "equal logits":
        logit[:] = 1.0
    elif case == "turned logits":
        logit = -logit
    else:
        items = ItemNumbers(names=(), values_IF=items.values_IF[:, :0], row_N=items.row_N)
    found = fit_platt_items(logit, label, items)
    assert found == fit_platt(logit, label)
    assert isinstance(found, Platt)
    assert item_weights(found) == {}
    assert case != "turned logits" or found.a == MIN_SLOPE


def test_days_are_joined_with_their_own_items():
    (_, _, one), (_, _, other) = shown(seed=0), shown(num_items=30, seed=1)
    both = ItemNumbers.joined([one, other])
    weights = {"mean": 2.0, "of another model": 9.0}
    np.testing.assert_array_equal(
        both.term(weights), np.concatenate([one.term(weights), other.term(weights)])
    )
    np.testing.assert_allclose(one.term(weights), 2 * one.values_IF[one.row_N, 1])
