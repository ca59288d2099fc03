"""Where one way to search a filtered index becomes cheaper than another: measured on the host that searches.

Times are the processor's, of one thread, so that a busy host finds about what an idle one does. They are
rounded to steps, so that the processes of a host mostly agree.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from recsys.fast_scan import one_thread, scan
from recsys.index import Cutover, ItemIndex
from recsys.mask import Mask

MIN_ITEMS = 10_000
"""A smaller index is searched in no time in any way: it keeps the defaults."""
_REPEATS = 3
_FETCHED = (1.25, 2.0, 4.0, 8.0, 16.0)
_PASSING_SHARE = 0.02
"""Of the filter by which exact search is timed."""


def with_measured_cutover(index: ItemIndex, k: int) -> ItemIndex:
    """Return the same index with the cut-overs of this host, for searches of k items.

    Takes a tenth of a second for a million items; a small index keeps the defaults.
    """
    return index if index.embeddings_ID.shape[0] < MIN_ITEMS else replace(index, cutover=_measured(index, k))


def _measured(index: ItemIndex, k: int) -> Cutover:
    num_items = index.embeddings_ID.shape[0]
    drawn = np.random.default_rng(0).random((num_items,))
    query = index.embeddings_ID[0]
    few, half = Mask.of_bools(drawn < _PASSING_SHARE), Mask.of_bools(drawn < 0.5)
    k = min(k, few.count)
    each_s = _seconds(lambda: index.nearest_of(query, few.rows(), k)) / few.count
    if index.exact:
        filtered_s = _seconds(lambda: index.scan_exactly(query, k, half))
        return Cutover(exact_share=_share(filtered_s, each_s, num_items), measured=True)
    count = min(k * index.factor, half.count)
    filtered_s = _seconds(lambda: scan(index.index, query, count, index.lists, half))
    found = scan(index.index, query, count, index.lists, half)
    order_s = _seconds(lambda: index.nearest_of(query, found, k))
    fetched = [1.0]
    for times in _FETCHED:
        most = math.ceil(count * times)
        if most > num_items or _seconds(partial(_fetch, index, query, most, half)) > filtered_s:
            break
        fetched.append(times)
    return Cutover(
        exact_share=_share(filtered_s + order_s, each_s, num_items), most_fetched=fetched[-1], measured=True
    )


def _fetch(index: ItemIndex, query_D: np.ndarray, count: int, allowed: Mask) -> np.ndarray:
    found = scan(index.index, query_D, count, index.lists)
    passing: np.ndarray = found[allowed[found]]
    return passing


def _share(filtered_s: float, each_s: float, num_items: int) -> float:
    """Return the share of items that are looked at one by one in the time of a filtered search."""
    share = min(1.0, filtered_s / each_s / num_items)
    return float(2 ** (round(2 * math.log2(share)) / 2))


def _seconds(search: Callable[[], object]) -> float:
    taken = []
    for _ in range(_REPEATS):
        with one_thread():
            start = time.thread_time()
            search()
            taken.append(time.thread_time() - start)
    return max(min(taken), 1e-9)
