"""The encoder: standardised numbers, missing values, the clock, events and ages."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.definitions import HISTORY_AGE_BUCKETS
from features.encode import Encoder, raw_columns
from features.fit import FitFrames, fit_encoder
from features.history import VOID
from features.kinds.rows import number_arrays
from features.kinds.transforms import CLIP
from features.sequences import NEVER, EncodedEvents, age_buckets, history_slices
from recsys.encoding import EncoderState
from recsys.vocabulary import Vocabulary


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
    absurd = dict.fromkeys(encoder.raw_columns("user"), 1000000000000.0)
    assert np.abs(encoder.encode_one("user", absurd).numbers).max() == CLIP
    assert not encoder.encode_one("user", {}).numbers.any()
    assert not encoder.encode("user", users.select("user_id")).numbers.any()


def test_one_row_is_encoded_as_in_a_frame_bit_for_bit(shop_chain, config):
    users = shop_chain[3].table("users")
    encoder = Encoder.from_config(
        config, fit_encoder(config, FitFrames.read(shop_chain[3], [shop_chain[3]], config), None, 0)
    )
    numbers = encoder.encode("user", users).numbers
    for expected, row in zip(numbers[:50], users.head(50).iter_rows(named=True), strict=True):
        found = encoder.encode_one("user", row).numbers
        assert found.dtype == np.float32
        assert found.tobytes() == expected.tobytes()


def test_one_users_aggregates_are_encoded_as_those_of_many_bit_for_bit(shop_chain, config):
    encoder = Encoder.from_config(
        config, fit_encoder(config, FitFrames.read(shop_chain[3], [shop_chain[3]], config), None, 0)
    )
    [cross] = encoder.features.crosses
    names = raw_columns(cross.numbers)
    table = shop_chain[3].table(f"cross_{cross.group}").select(cross.group, *names).head(40)
    expected = encoder.encode_cross(cross, number_arrays(table.select(names)), table.height)
    found = encoder.encode_cross_rows(cross, table.rows())
    assert np.isnan(number_arrays(table.select(names))["hours_since_feedback"]).any()
    assert found.tobytes() == expected.tobytes()
    assert encoder.encode_cross_rows(cross, ()).tobytes() == expected[-1:].tobytes()


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Shanghai", "America/New_York"])
@given(at=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)))
def test_the_clock_is_equal_for_one_and_many(timezone, make_config, at):
    encoder = Encoder.from_config(make_config(timezone=timezone), EncoderState(vocabularies={}, numbers={}))
    instant = at.replace(tzinfo=UTC, microsecond=at.microsecond // 1000 * 1000)
    frame = pl.DataFrame({"at": pl.Series([instant]).cast(pl.Datetime("ms", "UTC"))})
    assert encoder.with_clock(frame, "at").select("hour", "weekday").row(0, named=True) == encoder.clock_of(
        instant
    )


def test_texts_are_forgotten_oldest_first_but_not_those_of_one_catalogue(shop_chain, config, monkeypatch):
    """An encoder kept the vector of every text that a server was ever sent."""
    state = fit_encoder(config, FitFrames.read(shop_chain[3], [shop_chain[3]], config), None, 0)
    encoder = Encoder.from_config(config, state)
    items = shop_chain[3].table("items")
    monkeypatch.setattr("features.encode.MAX_TEXTS", 10)
    first = encoder.encode("item", items).text
    assert len(encoder._text_of) == items["title"].n_unique() > 10
    for n in range(30):
        encoder.encode("item", items.head(1).with_columns(title=pl.lit(f"red lamp {n}")))
    assert len(encoder._text_of) == 10
    assert "red lamp 29" in next(reversed(encoder._text_of))
    assert all(vector.base is None for vector in encoder._text_of.values())
    np.testing.assert_array_equal(encoder.encode("item", items).text, first)
    encoder.forget_texts()
    assert not encoder._text_of


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


def test_histories_are_newest_first_and_cut_to_their_length():
    events = _events([5, 6, 7, 8], [1, 0, 2, 1], [0, 60_000, 120_000, 180_000])
    found = history_slices(
        np.array([0, 2, 1, 0]), np.array([3, 2, 2, 4]), 3, np.array([180_000] * 4), 0, events
    )
    assert found.offsets.tolist() == [0, 2, 2, 2, 4], "what is of no kind takes a place and is left out"
    assert found.items.tolist() == [7, 5, 8, 7]
    assert found.kinds.tolist() == [2, 1, 1, 2]
    assert found.ages.tolist() == [1, 2, 0, 1]


@pytest.mark.parametrize(("shown_at", "items"), [(100, [6, 5]), (101, [6, 5]), (102, [6])])
def test_an_event_is_left_out_once_its_reversal_is_visible(shown_at, items):
    """The reversal came at 100; with a lag of 1 ms it is seen from 102 on. The event keeps its place."""
    events = _events([5, 6], [1, 1], [10, 20], [100, NEVER])
    found = history_slices(np.array([0]), np.array([2]), 2, np.array([shown_at]), 1, events)
    assert found.items.tolist() == items


def test_without_events_histories_are_empty():
    none = _events([], [], [])
    found = history_slices(np.array([0]), np.array([0]), 3, np.array([0]), 0, none)
    assert (found.items.size, found.offsets.tolist()) == (0, [0, 0])
