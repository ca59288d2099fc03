"""Numbers: transforms, statistics of training days, and bins."""

import math

import numpy as np
import polars as pl
import pytest

from features.kinds.binned import Binned
from features.kinds.feature import FitRows, Fitted
from features.kinds.number import Number
from features.kinds.rows import FrameRows
from features.kinds.transforms import SHRINKAGE
from recsys.encoding import EncoderState, NumberStatistics

NEUTRAL = NumberStatistics(prior=0.0, mean=0.0, std=1.0)


def _number(transform, unit=1.0):
    return Number(
        name="n", entity="user", freshness="nightly", transform=transform, column="x", unit=unit,
        of="of" if transform in ("rate", "mean") else "",
    )  # fmt: skip


def _encoded(transform, x, of, prior=0.0, unit=1.0):
    state = EncoderState(vocabularies={}, numbers={"n": NumberStatistics(prior=prior, mean=0.0, std=1.0)})
    frame = pl.DataFrame({"x": x, "of": of}, schema={"x": pl.Float64, "of": pl.Float64})
    return _number(transform, unit).encode(FrameRows(frame), state)[:, 0]


def _fitted(transform, frame, examples, unit=1.0):
    return _number(transform, unit).fit(FitRows(frame, lambda: np.array(examples)), Fitted()).statistics


def test_transforms_by_hand():
    p = (3 + SHRINKAGE * 0.25) / (10 + SHRINKAGE)
    expected = {
        "rate": np.log(p / (1 - p)),
        "mean": (3 + SHRINKAGE * 0.25) / (10 + SHRINKAGE),
        "log": np.log(4),
        "raw": 3,
    }
    for transform, value in expected.items():
        found = _encoded(transform, [3.0, None], [10.0, 10.0], prior=0.25)
        assert found.tolist() == pytest.approx([value, 0.0]), "a missing number is 0"
    for unit in (0.5, 15.0):
        mean = (3 * unit + SHRINKAGE * 0.25) / (10 + SHRINKAGE)
        assert _encoded("mean", [3.0], [10.0], prior=0.25, unit=unit)[0] == pytest.approx(mean)
    assert _encoded("log", [-3.0], [1.0])[0] == pytest.approx(-np.log(4))


def test_feedback_beyond_its_base_makes_a_rate_below_one():
    found = _encoded("rate", [500.0, 12.0, 0.0], [0.0, 10.0, 0.0], prior=0.25)
    of_all = [(n + SHRINKAGE * 0.25) / (n + SHRINKAGE) for n in (500, 12, 0)]
    assert found.tolist() == pytest.approx([np.log(p / (1 - p)) for p in of_all])


def test_statistics_by_hand():
    frame = pl.DataFrame({"x": [1.0, 3.0, None], "of": [4.0, 4.0, 4.0]})
    fitted = _fitted("raw", frame, [1.0, 1.0, 1.0])
    assert (fitted.mean, fitted.std) == (2.0, 1.0)
    assert _fitted("rate", frame, [1.0, 1.0, 1.0]).prior == pytest.approx(4 / 12)
    assert _fitted("mean", frame, [7.0, 0.0, 1.0], unit=0.25).prior == pytest.approx(1 / 12)
    shown = _fitted("raw", frame, [1.0, 3.0, 9.0])
    assert (shown.mean, shown.std) == pytest.approx((2.5, math.sqrt(0.75)))
    assert _fitted("raw", frame, [0.0, 0.0, 2.0]) == fitted, "no example has a value: rows alike"


@pytest.mark.parametrize("values", [[], [None, None], [0.1] * 7, [1e9] * 3])
def test_a_constant_or_absent_number_never_divides_by_nothing(values):
    rows = pl.DataFrame({"x": values}, schema={"x": pl.Float64})
    assert _fitted("raw", rows, [1.0] * len(values)).std == 1.0
    assert _fitted("raw", pl.DataFrame({"y": [1]}), [1.0]) == NEUTRAL


def _edges(values):
    binned = Binned(name="b", entity="item", freshness="nightly", column="x", vocabulary="b", dim=2, bins=4)
    fitted = binned.fit(FitRows(values, lambda: np.ones(values.height)), Fitted())
    return fitted.statistics.edges


def test_bins_have_equal_mass_and_equal_values_share_one():
    edges = _edges(pl.DataFrame({"x": [float(n) for n in range(100)] + [None]}))
    counts = np.bincount(np.searchsorted(edges, np.arange(100.0), side="right"))
    assert len(edges) == 3
    assert counts.max() - counts.min() <= 2
    assert _edges(pl.DataFrame({"x": [7.0] * 50})) == (7.0,)
    assert _edges(pl.DataFrame({"y": [1]})) == ()
