"""Cut-overs follow what the ways of a search cost; what is measured is rounded to steps."""

import time
from dataclasses import dataclass

import numpy as np
import pytest

from recsys import index_costs
from recsys.index import Cutover, ItemIndex
from recsys.index_costs import with_measured_cutover

VECTORS = np.zeros((20_000, 4), np.float32)


def _work(seconds):
    """Take processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@dataclass
class Searched:
    """An index whose ways cost what the test says, in seconds."""

    each: float
    filtered: float
    exact: bool = False
    factor: int = 2
    lists: float = 1.0
    embeddings_ID: np.ndarray = None  # noqa: N815 - as the index calls it
    index: None = None
    cutover: Cutover = None

    def nearest_of(self, vector, rows, k):
        _work(self.each * rows.size)
        return rows[:k]

    def scan_exactly(self, vector, k, allowed):
        _work(self.filtered)


@pytest.fixture
def cutover(monkeypatch):
    """Measure an index that costs so much."""

    def measure(*, each=1e-6, filtered, plain=1e-4, exact=False):
        def scan(index, vector, count, lists, allowed=None):
            _work(plain if allowed is None else filtered)
            return np.arange(count)

        monkeypatch.setattr(index_costs, "scan", scan)
        costs = Searched(each=each, filtered=filtered, exact=exact, embeddings_ID=VECTORS)
        return with_measured_cutover(costs, 100).cutover

    return measure


def test_a_filter_is_searched_exactly_while_that_is_cheaper(cutover):
    """400 rows of 20,000 pass the filter that is timed: 5 us each are 2 ms."""
    slow = cutover(each=5e-6, filtered=1e-3, exact=True)
    fast = cutover(each=5e-6, filtered=16e-3, exact=True)
    assert slow.measured
    assert slow.exact_share == pytest.approx(0.01, rel=0.45)
    assert fast.exact_share == pytest.approx(0.16, rel=0.45)
    compressed = cutover(each=5e-6, filtered=16e-3)
    assert compressed.exact_share == pytest.approx(0.17, rel=0.45)


def test_as_much_is_fetched_as_a_filtered_scan_costs(cutover):
    assert cutover(filtered=2e-3).most_fetched == 16
    assert cutover(filtered=1e-4, plain=2e-3).most_fetched == 1


def test_steps_of_a_square_root_of_two_hide_small_differences():
    assert index_costs._share(1.15, 1e-3, 20_000) == index_costs._share(1.2, 1e-3, 20_000) == 2**-4.0
    assert index_costs._share(1.0, 1e-9, 20_000) == 1.0


@pytest.mark.parametrize("items", [0, 1, 9_999])
def test_a_small_index_keeps_the_defaults(items):
    index = ItemIndex.build(np.zeros((items, 4), np.float32))
    assert with_measured_cutover(index, 10).cutover == Cutover()


@pytest.mark.parametrize("exact_items", [0, 50_000])
def test_a_real_index_is_measured_and_searched_as_before(exact_items):
    vectors = np.random.default_rng(0).normal(size=(10_000, 8)).astype(np.float32)
    index = ItemIndex.build(vectors, exact_items)
    measured = with_measured_cutover(index, 100)
    assert measured.cutover.measured
    assert 0 < measured.cutover.exact_share <= 1
    np.testing.assert_array_equal(measured.search(vectors[3], 20, None), index.search(vectors[3], 20, None))
