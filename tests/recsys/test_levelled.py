"""A calibrator's level is moved to labels that its head has learned; its form stays."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.calibration import Affine, Identity, Isotonic, Platt, PlattItems, PlattParent
from recsys.calibrators import HeadRows
from recsys.config import default_config
from recsys.item_terms import ItemNumbers
from recsys.levelled import levelled

CLICK, _, RATING = default_config().tasks
ROWS = 4_000


def head_rows(rate=0.1, rows=ROWS, seed=0, items=None):
    """Clicks at a rate, of a head whose logits say a third of it; what is high there weighs twice."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(np.log(rate / 3), 0.5, rows)
    return HeadRows(
        logit=logit,
        prediction=1 / (1 + np.exp(-logit)),
        label=(rng.random(rows) < rate).astype(float),
        weight=np.where(logit > np.log(rate / 3), 2.0, 1.0),
        shown_at=np.arange(rows),
        items=items,
    )


def stars(rows=ROWS):
    rng = np.random.default_rng(1)
    value = rng.uniform(2.5, 3.5, rows)
    return HeadRows(
        logit=value,
        prediction=value,
        label=np.clip(value + 0.5, 1, 5),
        weight=np.where(value > 3, 2.0, 1.0),
        shown_at=np.arange(rows),
    )


def of_rows(calibrator, rows):
    given = rows.logit if calibrator.reads == "logit" else rows.prediction
    return float(np.average(calibrator.apply(given), weights=rows.weight))


def observed(rows):
    return float(np.average(rows.label, weights=rows.weight))


@pytest.mark.parametrize(
    "calibrator", [Platt(a=0.7, b=-1.0), Isotonic(x=(0.01, 0.1, 0.4), y=(0.005, 0.02, 0.2))]
)
def test_a_probability_means_in_the_mean_what_was_observed(calibrator):
    rows = head_rows()
    assert of_rows(calibrator, rows) < 0.5 * observed(rows)
    moved = levelled(calibrator, rows, CLICK)
    assert of_rows(moved, rows) == pytest.approx(observed(rows), rel=2e-3)  # the targets are smoothed


def test_the_form_stays():
    rows = head_rows()
    assert levelled(Platt(a=0.7, b=-1.0), rows, CLICK).a == 0.7
    knots = Isotonic(x=(0.01, 0.1, 0.4), y=(0.005, 0.02, 0.2))
    moved = levelled(knots, rows, CLICK)
    assert moved.x == knots.x
    odds = [np.log(np.array(y)) - np.log1p(-np.array(y)) for y in (knots.y, moved.y)]
    np.testing.assert_allclose(np.diff(odds[1]), np.diff(odds[0]))


def test_a_term_of_the_item_is_part_of_what_is_said():
    rng = np.random.default_rng(2)
    items = ItemNumbers(
        names=("click_rate",),
        values_IF=rng.normal(size=(20, 1)).astype(np.float32),
        row_N=rng.integers(20, size=ROWS),
    )
    rows = head_rows(items=items)
    moved = levelled(PlattItems(a=1.0, b=0.0, items={"click_rate": 0.8}), rows, CLICK)
    said = moved.apply(rows.logit + items.term({"click_rate": 0.8}))
    assert np.average(said, weights=rows.weight) == pytest.approx(observed(rows), rel=2e-3)


def test_a_parents_logit_is_part_of_what_is_said():
    rows = head_rows()
    rows = replace(rows, parent=rows.logit + np.random.default_rng(3).normal(2, 1, ROWS))
    moved = levelled(PlattParent(a=0.5, parent=0.6, b=0.0), rows, CLICK)
    said = moved.apply(moved.joined(rows.logit, rows.parent))
    assert np.average(said, weights=rows.weight) == pytest.approx(observed(rows), rel=2e-3)
    assert (moved.a, moved.parent) == (0.5, 0.6)


@pytest.mark.parametrize(
    "calibrator",
    [Affine(scale=0.9, offset=0.0, low=1.0, high=5.0), Isotonic(x=(2.5, 3.0, 3.5), y=(2.0, 2.4, 3.0))],
)
def test_a_value_has_the_mean_of_the_labels(calibrator):
    rows = stars()
    moved = levelled(calibrator, rows, RATING)
    assert of_rows(calibrator, rows) < observed(rows) - 0.4
    assert of_rows(moved, rows) == pytest.approx(observed(rows), abs=1e-9)


def test_few_labels_or_no_calibrator_move_nothing():
    sigmoid = Platt(a=1.0, b=0.5)
    assert levelled(sigmoid, head_rows(rate=0.005), CLICK) == sigmoid
    affine = Affine(scale=1.0, offset=0.0, low=1.0, high=5.0)
    assert levelled(affine, stars(rows=40), RATING) == affine
    unknown = head_rows()
    unknown.label[:] = np.nan
    assert levelled(sigmoid, unknown, CLICK) == sigmoid
    assert levelled(Identity(), head_rows(), CLICK) == Identity()


def test_knots_that_differ_in_their_last_digit_never_fall():
    """Rounding turns some around, and falling knots are refused."""
    near = np.linspace(0.378, 0.393, 20_000)
    y = np.stack([near, np.nextafter(near, 1)], axis=1).ravel()
    knots = Isotonic(x=tuple(np.linspace(0.05, 0.4, y.size)), y=tuple(y))
    assert levelled(knots, head_rows(rate=0.45), CLICK).y > knots.y


def test_what_is_said_to_be_certain_stays_so():
    moved = levelled(Isotonic(x=(0.01, 0.1, 0.4), y=(0.0, 0.02, 1.0)), head_rows(), CLICK)
    assert (moved.y[0], moved.y[2]) == (0.0, 1.0)
    assert moved.y[1] > 0.02


@pytest.mark.parametrize(
    "calibrator",
    [Affine(scale=1.0, offset=1.0, low=1.0, high=5.0), Isotonic(x=(2.5, 3.0, 3.5), y=(2.0, 2.4, 5.0))],
)
def test_no_value_leaves_the_range_of_the_task(calibrator):
    rows = replace(stars(), label=np.full(ROWS, 4.9))
    moved = levelled(calibrator, rows, RATING)
    assert of_rows(calibrator, rows) < of_rows(moved, rows)
    assert moved.apply(rows.prediction).max() <= RATING.high
