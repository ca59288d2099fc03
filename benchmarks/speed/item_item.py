"""`recsys bench item-item`: time and memory of item-item weights, and of scoring one user by them.

Users' activity is log-normal. Items lie in groups, one a user, with popularity that falls as a power; three
events in ten are of any group. Up to EASE's size both EASE and item-kNN are built, above it item-kNN alone.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.speed.machine import forget_peak, peak_rss, spent
from recsys.item_item.ease import MOST_ITEMS, build_ease
from recsys.item_item.histories import Histories
from recsys.item_item.knn import build_item_knn
from recsys.item_item.neighbours import ItemItem
from recsys.item_item.pair_counts import gram_of
from recsys.item_item.recency import PerStep
from recsys.user_sources import RowScores

GROUP_ITEMS = 1_000
STRAY, STEEPNESS = 0.3, 4
EVENTS_SCORED, CANDIDATES = 50, 500


def measure_item_item(items: int, events: int, users: int, repeats: int, seed: int) -> dict[str, Any]:
    """Draw a log, build weights with 200 neighbours an item, and score users of 50 events."""
    forget_peak()
    with spent() as drawing:
        histories = draw_histories(items, events, users, seed)
        matrix = histories.matrix(items)
    pairs = int(np.square(np.diff(matrix.indptr).astype(np.int64)).sum())
    found: dict[str, Any] = {
        "items": items,
        "events": int(histories.items.size),
        "users": users,
        "pairs": pairs,
        "draw": {"wall_s": drawing.wall_s, "cpu_s": drawing.cpu_s, "peak_mb": peak_rss() / 2**20},
    }
    builds: dict[str, Callable[[], ItemItem]] = {"item_knn": lambda: build_item_knn(matrix)}
    if items <= MOST_ITEMS:
        builds["ease"] = lambda: build_ease(gram_of(matrix), 100.0)
    for name, build in builds.items():
        forget_peak()
        with spent() as building:
            weights = build()
        found[name] = {
            "wall_s": building.wall_s,
            "cpu_s": building.cpu_s,
            "peak_mb": peak_rss() / 2**20,
            "neighbours": float((weights.neighbours >= 0).sum(axis=1).mean()),
            "score_ms": score_ms(weights, repeats, seed),
        }
        del weights
    return found


def draw_histories(items: int, events: int, users: int, seed: int) -> Histories:
    """Draw a log in order of time; a user keeps at most the latest 200 events."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0, 1.2, users)
    user = rng.choice(users, events, p=activity / activity.sum())
    size = min(GROUP_ITEMS, items)
    groups = items // size
    item = (rng.random(events) ** STEEPNESS * size).astype(np.int64) * groups + user % groups
    stray = rng.random(events) < STRAY
    item[stray] = (rng.random(int(stray.sum())) ** STEEPNESS * items).astype(np.int64)
    return Histories.of(user, item, num_users=users, days=np.arange(events, dtype=np.float64))


def score_ms(weights: ItemItem, repeats: int, seed: int) -> float:
    """Time 500 scores by 50 of the items with most neighbours: the median, in milliseconds of processor."""
    rng = np.random.default_rng(seed)
    most = np.argsort(-(weights.neighbours >= 0).sum(axis=1), kind="stable")
    full = most[: max(EVENTS_SCORED, weights.num_items // 2)]
    one = Histories.of(np.zeros(EVENTS_SCORED, np.int64), np.zeros(EVENTS_SCORED, np.int64), num_users=1)
    of_events = PerStep(0.7).weights(one)
    taken = []
    for _ in range(repeats):
        rows, candidates = rng.choice(full, EVENTS_SCORED), rng.integers(0, weights.num_items, CANDIDATES)
        start = time.process_time()
        RowScores(*weights.scores(rows, of_events)).of(candidates)
        taken.append(time.process_time() - start)
    return 1e3 * statistics.median(taken)
