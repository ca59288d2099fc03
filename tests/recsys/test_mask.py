"""A packed set of rows is what the bools say, at every size, and FAISS reads it so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.mask import Mask, clear_bits, count_bits, empty_bits, set_bits, union

SIZES = (0, 1, 7, 8, 63, 64, 65, 1000, 4097)


def _some(size, seed=0):
    return np.random.default_rng(seed).random(size) < 0.3


@pytest.mark.parametrize("size", SIZES)
def test_bools_rows_and_bits_are_one_set(size):
    allowed = _some(size)
    mask = Mask.of_bools(allowed)
    rows = np.flatnonzero(allowed)
    assert (len(mask), mask.count) == (size, rows.size)
    np.testing.assert_array_equal(mask.bools(), allowed)
    np.testing.assert_array_equal(mask.rows(), rows)
    np.testing.assert_array_equal(mask.first(5), rows[:5])
    np.testing.assert_array_equal(mask[np.arange(size)], allowed)
    assert [mask[row] for row in range(size)] == allowed.tolist()
    np.testing.assert_array_equal(Mask.of_rows(np.append(rows, rows[:3]), size).bits, mask.bits)


@pytest.mark.parametrize("size", SIZES)
def test_the_full_set_has_no_bit_past_its_end(size):
    mask = Mask.full(size)
    assert mask.count == count_bits(mask.bits) == size
    assert mask.bools().all()


@given(st.lists(st.booleans(), max_size=200), st.integers(0, 300))
def test_a_resized_set_keeps_the_rows_it_can(allowed, size):
    found = Mask.of_bools(np.array(allowed, np.bool_)).resized(size)
    wanted = np.zeros(size, np.bool_)
    wanted[: len(allowed)] = allowed[:size]
    np.testing.assert_array_equal(found.bools(), wanted)
    assert found.count == wanted.sum()


@pytest.mark.parametrize("size", SIZES)
def test_sets_are_combined(size):
    a, b = _some(size, 1), _some(size, 2)
    both = Mask.of_bools(a) & Mask.of_bools(b)
    np.testing.assert_array_equal(both.bools(), a & b)
    assert both.count == (a & b).sum()
    either = union([Mask.of_bools(a).bits, Mask.of_bools(b).bits], size)
    np.testing.assert_array_equal(Mask.of_bits(either, size).bools(), a | b)
    assert union([], size).sum() == 0


def test_without_leaves_the_set_itself_as_it_was():
    mask = Mask.full(100)
    less = mask.without(np.array([0, 64, 99, 64]))
    assert (mask.count, less.count) == (100, 97)
    assert not less[np.array([0, 64, 99])].any()
    assert mask.without(np.zeros(0, np.int64)) is mask


def test_bits_are_set_and_cleared_in_place():
    bits = empty_bits(70)
    set_bits(bits, np.array([3, 69, 3], np.int32))
    assert np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist() == [3, 69]
    clear_bits(bits, np.array([3]))
    assert count_bits(bits) == 1
