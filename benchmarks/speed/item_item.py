"""`recsys bench item-item`: time and memory of item-item weights, and of scoring one user by them.

Users' activity is log-normal. Items lie in groups, one a user, with popularity that falls as a power; three
events in ten are of any group. Up to EASE's size both EASE and item-kNN are built, above it item-kNN alone.
`night` is all that a night does: it reads what users took from a snapshot's files, and makes its table.
"""

import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from benchmarks.speed.machine import forget_peak, peak_rss, spent
from features.taken import TABLE
from recsys.config import default_config
from recsys.item_item.ease import MOST_ITEMS, build_ease
from recsys.item_item.histories import Histories
from recsys.item_item.knn import build_item_knn
from recsys.item_item.neighbours import ItemItem
from recsys.item_item.pair_counts import gram_of
from recsys.item_item.recency import PerStep
from recsys.snapshot import DaySnapshot, part_folder
from recsys.stages import MANIFEST, write_json
from recsys.user_sources import RowScores
from training.item_item import item_item_table

GROUP_ITEMS = 1_000
STRAY, STEEPNESS = 0.3, 4
EVENTS_SCORED, CANDIDATES = 50, 500


def measure_item_item(items: int, events: int, users: int, repeats: int, seed: int) -> dict[str, Any]:
    """Draw a log, build weights with 200 neighbours an item, score users of 50 events; and make a night's."""
    found = _of_histories(items, events, users, repeats, seed)
    return found | {"night": _of_night(items, events, users, seed)}


def _of_histories(items: int, events: int, users: int, repeats: int, seed: int) -> dict[str, Any]:
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


def _of_night(items: int, events: int, users: int, seed: int) -> dict[str, float]:
    """Draw the same log into a snapshot, and make its table as a night with the default config does."""
    with TemporaryDirectory(prefix="recsys-item-item-") as folder:
        snapshot = write_snapshot(draw_histories(items, events, users, seed), items, Path(folder))
        forget_peak()
        with spent() as building:
            table = item_item_table(snapshot, default_config(), snapshot.table("items")["item_id"])
        assert table is not None, "users took something"
        return {
            "wall_s": building.wall_s,
            "cpu_s": building.cpu_s,
            "peak_mb": peak_rss() / 2**20,
            "most_neighbours": float(table.neighbours.shape[1]),
        }


def write_snapshot(histories: Histories, items: int, folder: Path) -> DaySnapshot:
    """Write what users took as a day's snapshot has it, a million events at a time."""
    write_json(folder / MANIFEST, {"parts": 1})
    ids = pl.int_range(items, eager=True).alias("item").to_frame().select(item_id=_named("item"))
    ids.write_parquet(folder / "items.parquet")
    assert histories.days is not None, "the log is drawn with days"
    pieces, users = [], histories.users
    for start in range(0, users.size, 1_000_000):
        part = slice(start, start + 1_000_000)
        at_s = histories.days[part].astype(np.float64)
        rows = pl.DataFrame({"user": users[part], "item": histories.items[part], "at": at_s})
        instant = (1e12 + 1e3 * pl.col("at")).cast(pl.Int64).cast(pl.Datetime("ms", "UTC"))
        pieces.append(folder / f"piece-{start}.parquet")
        rows.with_row_index("n", offset=start).select(
            _named("user").alias("user_id"),
            _named("item").alias("item_id"),
            kind=pl.lit("click"),
            received_at=instant,
            feedback_id=_named("n"),
        ).write_parquet(pieces[-1])
    part_folder(folder, 0).mkdir()
    pl.scan_parquet(pieces).sink_parquet(part_folder(folder, 0) / f"{TABLE}.parquet")
    return DaySnapshot(date(2026, 1, 30), folder)


def _named(column: str) -> pl.Expr:
    """Give numbers as ids of one length, which sort as they do."""
    return pl.format("{}-{}", pl.lit(column), pl.col(column).cast(pl.String).str.zfill(9))


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
