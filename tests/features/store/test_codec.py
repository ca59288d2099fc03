"""Packed values come back bit for bit; what is damaged does not come back at all."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.store.codec import DICTIONARY_BYTES, Codec
from recsys.errors import StoreError


def _rows(number):
    rng = random.Random(number)
    return [
        json.dumps(
            [{"clicks_7": rng.randrange(99), "country": rng.choice("abc")}, [rng.randrange(10**9)] * 3]
        ).encode()
        for _ in range(500)
    ]


@given(st.lists(st.binary(max_size=300), max_size=5), st.binary(max_size=3000))
def test_any_value_comes_back(sample, value):
    codec = Codec.fit(sample)
    assert codec.unpack(codec.pack(value)) == value
    assert Codec(codec.dictionary).unpack(codec.pack(value)) == value


def test_rows_that_look_alike_shrink():
    codec = Codec.fit(_rows(0))
    assert 0 < len(codec.dictionary) <= DICTIONARY_BYTES
    alone = Codec.fit([])
    rows = _rows(1)
    packed, plain = (sum(len(c.pack(r)) for r in rows) for c in (codec, alone))
    assert packed < 0.75 * plain < 0.75 * sum(map(len, rows))


@pytest.mark.parametrize("damage", ["flip", "cut", "other dictionary", "empty"])
def test_a_damaged_value_is_refused(damage):
    codec = Codec.fit(_rows(0))
    packed = bytearray(codec.pack(_rows(2)[0] * 20))
    if damage == "flip":
        packed[len(packed) // 2] ^= 4
    reader = Codec.fit(_rows(3)) if damage == "other dictionary" else codec
    data = {"cut": packed[:-3], "empty": b""}.get(damage, packed)
    with pytest.raises(StoreError, match="publish the version again"):
        reader.unpack(bytes(data))
