"""The encoder: standardisation, missing values, frozen statistics, ids, events and ages."""

import math
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.definitions import HISTORY_AGE_BUCKETS, Number
from features.encode import CLIP, SHRINKAGE, Encoder, transform
from features.fit import FitFrames, fit_encoder, fit_number
from features.history import VOID
from features.sequences import NEVER, EncodedEvents, age_buckets, history_slices
from recsys.encoding import EncoderState, NumberStatistics
from recsys.vocabulary import Vocabulary

RAW = Number(name="n", entity="user", freshness="nightly", transform="raw", column="x")
NEUTRAL = NumberStatistics(prior=0.0, mean=0.0, std=1.0)


def _number(kind, unit=1.0):
    return Number(
        name="n", entity="user", freshness="nightly", transform=kind, column="x", of="of", unit=unit
    )


def test_transforms_by_hand():
    statistics = NumberStatistics(prior=0.25, mean=0.0, std=1.0)
    x, of = np.array([3.0, np.nan]), np.array([10.0, 10.0])
    p = (3 + SHRINKAGE * 0.25) / (10 + SHRINKAGE)
    assert transform(_number("rate"), x, of, statistics)[0] == pytest.approx(np.log(p / (1 - p)))
    for unit in (0.5, 15.0):
        mean = (3 * unit + SHRINKAGE * 0.25) / 30
        assert transform(_number("mean", unit), x, of, statistics)[0] == pytest.approx(mean)
    assert transform(_number("log"), -x, of, statistics)[0] == pytest.approx(-np.log(4))
    assert transform(RAW, x, of, statistics)[0] == 3
    for kind in ("rate", "mean", "log", "raw"):
        assert np.isnan(transform(_number(kind), x, of, statistics)[1])


def test_feedback_without_impressions_has_a_finite_rate():
    assert np.isfinite(transform(_number("rate"), np.array([500.0]), np.array([0.0]), NEUTRAL)).all()
    assert np.isfinite(transform(_number("rate"), np.array([0.0]), np.array([0.0]), NEUTRAL)).all()


def test_fitted_numbers_are_standardised_clipped_and_missing_is_zero(shop_chain, config):
    users = shop_chain[3].table("users")
    state = fit_encoder(config, FitFrames.read(shop_chain[3], [shop_chain[3]], config), None, 0)
    encoder = Encoder.from_config(config, state)
    numbers = encoder.encode("user", users).numbers
    assert numbers.dtype == np.float32
    assert np.abs(numbers).max() <= CLIP
    row = dict(zip(users["user_id"], range(users.height), strict=True))
    seen = numbers[[row[u] for u in shop_chain[3].table("examples")["user_id"]]]
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=0.1)
    varied = seen.std(axis=0) > 0
    np.testing.assert_allclose(seen.std(axis=0)[varied], 1, atol=0.2)
    assert varied.sum() > 10
    absurd = dict.fromkeys(encoder.number_columns("user"), 1000000000000.0)
    assert np.abs(encoder.encode_one("user", absurd).numbers).max() == CLIP
    assert not encoder.encode_one("user", {}).numbers.any()
    assert not encoder.encode("user", users.select("user_id")).numbers.any()


def test_fit_number_by_hand():
    frame = pl.DataFrame({"x": [1.0, 3.0, None], "of": [4.0, 4.0, 4.0]})
    fitted = fit_number(RAW, frame, np.ones(3))
    assert (fitted.mean, fitted.std) == (2.0, 1.0)
    assert fit_number(_number("rate"), frame, np.ones(3)).prior == pytest.approx(4 / 12)
    assert fit_number(_number("mean", 0.25), frame, np.array([7.0, 0, 1])).prior == pytest.approx(1 / 12)
    shown = fit_number(RAW, frame, np.array([1.0, 3.0, 9.0]))
    assert (shown.mean, shown.std) == pytest.approx((2.5, math.sqrt(0.75)))
    assert fit_number(RAW, frame, np.array([0.0, 0.0, 2.0])) == fitted, "no example has a value: rows alike"


@pytest.mark.parametrize("values", [[], [None, None], [0.1] * 7, [1e9] * 3])
def test_a_constant_or_absent_number_never_divides_by_nothing(values):
    rows = pl.DataFrame({"x": values}, schema={"x": pl.Float64})
    assert fit_number(RAW, rows, np.ones(len(values))).std == 1.0
    assert fit_number(RAW, pl.DataFrame({"y": [1]}), np.ones(1)) == NEUTRAL


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Shanghai", "America/New_York"])
@given(at=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)))
def test_the_clock_is_equal_for_one_and_many(timezone, make_config, at):
    encoder = Encoder.from_config(make_config(timezone=timezone), EncoderState(vocabularies={}, numbers={}))
    instant = at.replace(tzinfo=UTC, microsecond=at.microsecond // 1000 * 1000)
    frame = pl.DataFrame({"at": pl.Series([instant]).cast(pl.Datetime("ms", "UTC"))})
    assert encoder.with_clock(frame, "at").select("hour", "weekday").row(0, named=True) == encoder.clock_of(
        instant
    )


EVENTS = [
    ("click", None),
    ("purchase", 990.0),
    ("rating", 1.0),
    ("rating", 4.5),
    ("rating", 99.0),
    ("rating", None),
    ("view", None),
    ("rating", -3.0),
]


@pytest.mark.parametrize(
    ("edges", "codes"),
    [
        ((1.5, 2.5, 3.5, 4.5), [1, 2, 3, 7, 7, 5, 0, 3]),
        ((2.0,), [1, 2, 3, 4, 4, 3, 0, 3]),
        (None, [1, 2, 3, 3, 3, 3, 0, 3]),
    ],
)
def test_kind_codes_are_a_kinds_own_or_one_per_bin_of_its_value(config, edges, codes):
    history = {} if edges is None else {"rating": edges, "click": (0.5,)}
    state = EncoderState(
        vocabularies={"item_id": Vocabulary(ids=(), hash_buckets=0)}, numbers={}, history=history
    )
    encoder = Encoder.from_config(config, state)
    assert encoder.num_history_kinds == 3 + len(edges or ())
    kinds, values = zip(*EVENTS, strict=True)
    at = pl.Series([datetime(2026, 1, 1, tzinfo=UTC)] * len(EVENTS)).cast(pl.Datetime("ms", "UTC"))
    frame = pl.DataFrame({"item_id": "i", "kind": kinds, "received_at": at, VOID: at}).with_columns(
        value=pl.Series(values, dtype=pl.Float64)
    )
    assert encoder.events(frame).kinds.tolist() == codes
    assert encoder.events_of(["i"] * len(EVENTS), list(kinds), list(values))[1].tolist() == codes


def test_ages_are_powers_of_two_minutes():
    minutes = np.array([0, 0.99, 1, 2, 3, 4, 60, 60 * 24 * 365 * 9, -5])
    assert age_buckets((minutes * 60_000).astype(np.int64)).tolist() == [
        0,
        0,
        1,
        2,
        2,
        3,
        6,
        HISTORY_AGE_BUCKETS - 1,
        0,
    ]


def _events(items, kinds, at, void=None):
    void = [NEVER] * len(items) if void is None else void
    arrays = (np.array(x, np.int64) for x in (items, kinds, at, void))
    return EncodedEvents(**dict(zip(("items", "kinds", "at", "void"), arrays, strict=True)))


def test_histories_are_newest_first_and_padded():
    events = _events([5, 6, 7], [1, 0, 2], [0, 60_000, 120_000])
    items, kinds, ages = history_slices(
        np.array([0, 2, 1]), np.array([3, 2, 2]), 4, np.array([180_000] * 3), 0, events
    )
    assert items.tolist() == [[7, 0, 5, 0], [0] * 4, [0] * 4]
    assert kinds.tolist() == [[2, 0, 1, 0], [0] * 4, [0] * 4]
    assert ages.tolist() == [[1, 0, 2, 0], [0] * 4, [0] * 4]


@pytest.mark.parametrize(("shown_at", "kinds"), [(100, [1, 1]), (101, [1, 1]), (102, [1, 0])])
def test_an_event_is_masked_once_its_reversal_is_visible(shown_at, kinds):
    """The reversal came at 100; with a lag of 1 ms it is seen from 102 on. The event keeps its place."""
    events = _events([5, 6], [1, 1], [10, 20], [100, NEVER])
    _, found, _ = history_slices(np.array([0]), np.array([2]), 2, np.array([shown_at]), 1, events)
    assert found[0].tolist() == kinds


def test_without_events_histories_are_empty():
    none = _events([], [], [])
    for part in history_slices(np.array([0]), np.array([0]), 3, np.array([0]), 0, none):
        assert part.tolist() == [[0, 0, 0]]
