"""Sums in pieces are those of numpy, to the bit."""

import numpy as np
import pytest

from features.kinds import sums
from features.kinds.sums import sum_of


@pytest.mark.parametrize("leaf", [128, 1 << 16])
@pytest.mark.parametrize("count", [0, 1, 127, 129, 1000, 4099, 65_537, 300_001])
def test_the_sum_is_numpys_whatever_the_pieces(count, leaf, monkeypatch):
    monkeypatch.setattr(sums, "LEAF", leaf)
    rng = np.random.default_rng(count)
    numbers = rng.normal(size=count) * 10.0 ** rng.integers(-8, 8, count)
    for num_pieces in (1, 3, 50):
        cuts = np.sort(rng.integers(0, count + 1, num_pieces - 1))
        assert sum_of(np.split(numbers, cuts), count) == np.sum(numbers)
