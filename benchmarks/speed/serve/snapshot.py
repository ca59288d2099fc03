"""A synthetic day with a catalogue of any size, as the night's own writers read it.

Items have a category of 200, a price, a title that some five items share, and counts that follow a heavy
tail. A user likes a few categories: their history, what they bought and their counts per category are of
these. The numbers are drawn; nothing is simulated or trained.
"""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from benchmarks.speed.synthetic_columns import ids, instants
from features.history import VOID
from features.parts import window_names
from features.taken import TABLE as TAKEN
from recsys.config import RunConfig
from recsys.schema import INSTANT
from recsys.snapshot import ROW, DaySnapshot, part_folder
from recsys.stages import MANIFEST, write_json

DAY: Final = date(2026, 1, 30)
AS_OF: Final = datetime(2026, 1, 31, tzinfo=UTC)
CATEGORIES: Final = 200
EVENTS: Final = 50
"""Of each user's history."""
SEEN: Final = 100
"""Items that each user has bought: they are not shown again."""
LIKED: Final = 8
"""Categories of each user."""
EXAMPLES: Final = 20_000
"""Impressions that the encoder's statistics are fitted on."""
WITHDRAWN_SHARE: Final = 0.02
KINDS: Final = ("click", "purchase", "rating")
KIND_SHARES: Final = (0.8, 0.15, 0.05)
_COLOURS: Final = ("red", "green", "blue", "black", "white", "grey", "oak", "pine", "walnut", "brass")
_STYLES: Final = ("plain", "small", "large", "folding", "round", "square", "tall", "low", "soft", "heavy")
_MAKERS: Final = ("north", "south", "east", "west", "river", "hill", "lake", "stone", "forest", "field")
_RATES: Final = {"impressions": 1.0, "click_count": 0.08, "click_shown": 0.08, "rating_steps": 0.05}
"""How often a thing is counted per impression; all other counts are rarer."""
_RARE: Final = 0.01
_LIFE: Final = 90.0
"""Days since most items came."""


def write_snapshot(folder: Path, config: RunConfig, num_items: int, num_users: int, seed: int) -> DaySnapshot:
    """Write the day's tables into a new folder."""
    rng = np.random.default_rng(seed)
    part = part_folder(folder, 0)
    part.mkdir(parents=True)
    category_of = np.minimum(rng.geometric(4 / CATEGORIES, num_items) - 1, CATEGORIES - 1)
    popularity = rng.lognormal(0.0, 1.5, num_items)
    _items(config, category_of, popularity, rng).write_parquet(folder / "items.parquet")
    liked = rng.integers(0, CATEGORIES, (num_users, LIKED))
    _users(config, num_users, rng).write_parquet(part / "users.parquet")
    crosses = _counts(config, rng.lognormal(1.0, 1.0, liked.size), rng)
    by_category = {"user_id": ids("u", np.repeat(np.arange(num_users), LIKED))}
    names = {"category": _category(liked.ravel())}
    crosses.with_columns(**by_category, **names).unique(["user_id", "category"]).write_parquet(
        part / "cross_category.parquet"
    )
    choose = _Choice(category_of, popularity)
    tail = _tail(liked, choose, rng)
    tail.write_parquet(part / "tail.parquet")
    tail.filter(pl.col("kind").is_in(config.taken_kinds)).write_parquet(part / f"{TAKEN}.parquet")
    _seen(liked, choose, rng).write_parquet(part / "seen.parquet")
    _examples(num_items, num_users, rng).write_parquet(part / "examples.parquet")
    write_json(folder / MANIFEST, {"day": str(DAY), "parts": 1, "rows": {"impressions": EXAMPLES}})
    return DaySnapshot(DAY, folder)


class _Choice:
    """Draws items of given categories, popular ones more often."""

    def __init__(self, category_of: np.ndarray, popularity: np.ndarray) -> None:
        self._order = np.lexsort((-popularity, category_of))
        self._starts = np.searchsorted(category_of[self._order], np.arange(CATEGORIES + 1))

    def items(self, categories: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw an item for each category [N]; of an empty one, any item."""
        starts, sizes = self._starts[categories], np.diff(self._starts)[categories]
        drawn = starts + (sizes * rng.random(categories.size) ** 3).astype(np.int64)
        anyone = rng.integers(0, self._order.size, categories.size)
        chosen: np.ndarray = self._order[np.where(sizes > 0, drawn, anyone)]
        return chosen


def _items(
    config: RunConfig, category_of: np.ndarray, popularity: np.ndarray, rng: np.random.Generator
) -> pl.DataFrame:
    size = category_of.size
    age_hours = 24 * rng.exponential(_LIFE, size)
    counts = _counts(config, popularity, rng)
    frame = pl.DataFrame(
        {
            "item_id": ids("item-", np.arange(size)),
            "title": _titles(category_of, rng),
            "category": _category(category_of),
            "price": rng.lognormal(7.5, 1.0, size).astype(np.int64),
            "available_from": pl.Series([None], dtype=INSTANT).new_from_index(0, size),
            "available_until": pl.Series(
                np.where(rng.random(size) < WITHDRAWN_SHARE, AS_OF.timestamp() * 1000 - 1, np.nan)
            ).fill_nan(None).cast(pl.Int64).cast(INSTANT),
            "age_hours": age_hours.astype(np.int64),
        }
    ).hstack(counts)  # fmt: skip
    sums = [pl.col(name).sum().over("category") for name in window_names(config)]
    last = pl.col("hours_since_feedback").min().over("category")
    return frame.with_columns(*(e.name.prefix("by_category__") for e in (*sums, last)))


def _titles(category_of: np.ndarray, rng: np.random.Generator) -> pl.Series:
    size = category_of.size
    words = [pl.Series(words)[rng.integers(0, len(words), size)] for words in (_COLOURS, _STYLES, _MAKERS)]
    return pl.select(pl.concat_str(*words, ids("thing", category_of), separator=" ")).to_series()


def _category(numbers: np.ndarray) -> pl.Series:
    return ids("category-", numbers)


def _counts(config: RunConfig, popularity: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    """Draw the nightly counts of so many things, by window, and the hours since the last feedback."""
    columns: dict[str, np.ndarray] = {}
    for name in window_names(config):
        measure, window = name.rsplit("_", 1)
        days = _LIFE if window == "life" else float(window)
        expected = popularity * days * _RATES.get(measure, _RARE)
        columns[name] = rng.poisson(expected).astype(np.int32)
    columns["hours_since_feedback"] = rng.integers(0, 400, popularity.size).astype(np.int32)
    return pl.DataFrame(columns)


def _users(config: RunConfig, size: int, rng: np.random.Generator) -> pl.DataFrame:
    attributes = {
        f.column: ids("value-", rng.integers(0, 10, size)) for f in config.attributes if f.entity == "user"
    }
    users = pl.DataFrame({"user_id": ids("u", np.arange(size)), **attributes})
    return users.hstack(_counts(config, rng.lognormal(1.0, 1.0, size), rng))


def _tail(liked: np.ndarray, choose: _Choice, rng: np.random.Generator) -> pl.DataFrame:
    size = liked.shape[0] * EVENTS
    kind = rng.choice(len(KINDS), size, p=KIND_SHARES)
    day = DAY - timedelta(days=2)
    return pl.DataFrame(
        {
            "user_id": ids("u", np.tile(np.arange(liked.shape[0]), EVENTS)),
            "feedback_id": ids("f", np.arange(size)),
            "item_id": ids("item-", choose.items(_of_liked(liked, EVENTS, rng), rng)),
            "kind": pl.Series(KINDS)[kind],
            "value": pl.Series(np.where(kind == 2, rng.integers(2, 11, size) / 2, np.nan)).fill_nan(None),
            "received_at": instants(day, size, rng),
            VOID: pl.Series([None], dtype=INSTANT).new_from_index(0, size),
        }
    ).sort("user_id", "received_at", "feedback_id")


def _seen(liked: np.ndarray, choose: _Choice, rng: np.random.Generator) -> pl.DataFrame:
    users = ids("u", np.tile(np.arange(liked.shape[0]), SEEN))
    items = ids("item-", choose.items(_of_liked(liked, SEEN, rng), rng))
    rows = pl.DataFrame({"user_id": users, "kind": pl.Series(["purchase"]).new_from_index(0, users.len())})
    return rows.with_columns(items.alias("item_id")).unique().sort("user_id", "item_id")


def _of_liked(liked: np.ndarray, each: int, rng: np.random.Generator) -> np.ndarray:
    """Draw so many of each user's categories, users by turns."""
    users = np.tile(np.arange(liked.shape[0]), each)
    found: np.ndarray = liked[users, rng.integers(0, liked.shape[1], users.size)]
    return found


def _examples(num_items: int, num_users: int, rng: np.random.Generator) -> pl.DataFrame:
    none = np.zeros(EXAMPLES, np.int64)
    return pl.DataFrame(
        {
            "user_id": ids("u", rng.integers(0, num_users, EXAMPLES)),
            "item_id": ids("item-", (num_items * rng.random(EXAMPLES) ** 3).astype(np.int64)),
            "shown_at": instants(DAY, EXAMPLES, rng),
            "context_device": ids("device-", rng.integers(0, 3, EXAMPLES)),
            "live_click_count": none,
            "live_purchase_count": none,
            "live_rating_count": none,
            ROW: np.arange(EXAMPLES),
        }
    )
