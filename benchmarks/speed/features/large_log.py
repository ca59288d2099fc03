"""Dials -> a large canonical log, vectorised: a shop's volume and shape, no tastes. Same seed, same rows.

Day 1 also shows every user one item of each of their categories, so that the population (users, items and
pairs of user and category that have counts) is fixed from then on: what a night costs later is not growth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import numpy as np
import polars as pl

from recsys.log import InteractionLog, business_day
from recsys.schema import INSTANT, empty

FIRST_DAY = date(2025, 7, 1)
DAY_MS = 86_400_000
PAGE = 10
CATEGORIES_PER_USER = 4
CLICKED, BOUGHT, RATED, REFUNDED = 0.10, 0.10, 0.15, 0.10
"""Of the impressions, the clicks, the clicks, the purchases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDials:
    """How large a log is."""

    rows: int
    days: int
    seed: int = 0

    @property
    def users(self) -> int:
        """Give a hundred impressions to a user."""
        return max(20, self.rows // 100)

    @property
    def items(self) -> int:
        """Give four hundred impressions to an item."""
        return max(40, self.rows // 400)

    @property
    def categories(self) -> int:
        """Count the categories."""
        return 40

    @property
    def last(self) -> date:
        """Give the log's last day."""
        return FIRST_DAY + timedelta(days=self.days - 1)


class Shown(NamedTuple):
    """User, item and millisecond of the day of each impression; pages in one piece."""

    user: np.ndarray
    item: np.ndarray
    at: np.ndarray


def write_log(dials: LogDials, log: InteractionLog) -> Iterator[date]:
    """Write the log day by day; yield each day when its partitions are complete."""
    rng = np.random.default_rng(dials.seed)
    log.write("users", FIRST_DAY, _users(dials, rng))
    log.write("items", FIRST_DAY, _items(dials))
    liked = _liked(dials, rng)
    late = empty("feedback")
    per_day = (dials.rows - liked.size) // dials.days
    for number in range(dials.days):
        day = FIRST_DAY + timedelta(days=number)
        shown = _pages(dials, liked, per_day, rng)
        if number == 0:
            tour = _tour(dials, liked, rng)
            shown = Shown(*(np.concatenate(pair) for pair in zip(shown, tour, strict=True)))
        impressions = _impressions(number, shown)
        log.write("impressions", day, impressions)
        feedback = pl.concat([late, _feedback(impressions, rng)])
        today = business_day("received_at", "UTC") == day
        log.write("feedback", day, feedback.filter(today).sort("received_at", "feedback_id"))
        late = feedback.filter(~today)
        yield day


def _users(dials: LogDials, rng: np.random.Generator) -> pl.DataFrame:
    number = np.arange(dials.users)
    return pl.DataFrame(
        {
            "user_id": _named("user", number),
            "attribute_country": rng.choice(["de", "fr", "it", "pl", "us"], dials.users),
            "attribute_age_band": np.array(["18-24", "25-34", "35-54", "55+"])[number % 4],
            "attribute_usual_device": _device(number),
        }
    )


def _items(dials: LogDials) -> pl.DataFrame:
    number = np.arange(dials.items)
    return pl.DataFrame(
        {
            "item_id": _named("item", number),
            "title": _named("title of", number),
            "description": pl.Series([None] * dials.items, dtype=pl.String),
            "category": _named("category", number % dials.categories),
            "price": 100 + number * 7919 % 9900,
            "available_from": pl.Series([datetime.combine(FIRST_DAY, datetime.min.time(), UTC)])
            .cast(INSTANT)
            .new_from_index(0, dials.items),
            "available_until": pl.Series([None] * dials.items, dtype=INSTANT),
        }
    )


def _liked(dials: LogDials, rng: np.random.Generator) -> np.ndarray:
    """Draw each user's categories: [users, CATEGORIES_PER_USER], distinct in a row."""
    first = rng.integers(0, dials.categories, (dials.users, 1))
    steps = rng.integers(1, dials.categories // CATEGORIES_PER_USER, (dials.users, CATEGORIES_PER_USER))
    steps[:, 0] = 0
    liked: np.ndarray = (first + steps.cumsum(axis=1)) % dials.categories
    return liked


def _zipf(size: int) -> np.ndarray:
    """Give the cumulated shares of the Zipf-Mandelbrot law 1 / (rank + size / 1000)."""
    weight = 1.0 / (1 + np.arange(size) + size // 1000)
    shares: np.ndarray = np.cumsum(weight) / weight.sum()
    return shares


def _pages(dials: LogDials, liked: np.ndarray, rows: int, rng: np.random.Generator) -> Shown:
    """Draw a day's pages of ten."""
    pages = rows // PAGE
    user = np.repeat(np.searchsorted(_zipf(dials.users), rng.random(pages)), PAGE)
    category = liked[user, rng.integers(0, CATEGORIES_PER_USER, user.size)]
    own = dials.items // dials.categories
    rank = np.searchsorted(_zipf(own), rng.random(user.size))
    at = np.repeat(np.sort(rng.integers(0, DAY_MS, pages)), PAGE)
    return Shown(user, category + rank * dials.categories, at)


def _tour(dials: LogDials, liked: np.ndarray, rng: np.random.Generator) -> Shown:
    """Show each user one item of each of their categories."""
    user = np.repeat(np.arange(dials.users), CATEGORIES_PER_USER)
    own = dials.items // dials.categories
    item = liked.ravel() + rng.integers(0, own, user.size) * dials.categories
    return Shown(user, item, rng.integers(0, DAY_MS, dials.users).repeat(CATEGORIES_PER_USER))


def _impressions(day: int, shown: Shown) -> pl.DataFrame:
    user, item, at = shown
    same_page = np.concatenate([[False], (user[1:] == user[:-1]) & (at[1:] == at[:-1])])
    page = np.cumsum(~same_page) - 1
    position = np.arange(user.size) - np.flatnonzero(~same_page)[page] + 1
    start_ms = _ms(FIRST_DAY) + day * DAY_MS
    frame = pl.DataFrame(
        {
            "request_id": _named(f"r{start_ms // DAY_MS}", page),
            "user_id": _named("user", user),
            "item_id": _named("item", item),
            "shown_at": pl.Series(start_ms + at).cast(INSTANT),
            "position": pl.Series(position, dtype=pl.Int32),
        }
    )
    return frame.select(
        pl.format("{}:{}", "request_id", "position").alias("impression_id"),
        pl.all(),
        propensity=1.0 / (9.0 + pl.col("position")),
        propensity_kind=pl.lit("exact"),
        explored=pl.lit(value=False),
        sampled=pl.lit(value=False),
        sampling_rate=pl.lit(1.0),
        context_device=pl.Series(_device(user)),
    )


def _device(user: np.ndarray) -> np.ndarray:
    return np.where(user % 3 == 0, "desktop", "phone")


def _feedback(impressions: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Draw what came of a day's impressions: clicks within minutes, some of the rest days later."""
    shown = impressions.select("impression_id", "user_id", "item_id", at="shown_at")
    clicks = _after(shown, CLICKED, 60_000, rng)
    bought = _after(clicks, BOUGHT, 600_000, rng)
    kinds = {
        "click": clicks,
        "purchase": bought,
        "rating": _after(clicks, RATED, 6 * 3_600_000, rng),
        "refund": _after(bought, REFUNDED, DAY_MS, rng),
    }
    found = [
        rows.select(
            pl.format("{}:{}", "impression_id", pl.lit(kind)).alias("feedback_id"),
            "impression_id",
            "user_id",
            "item_id",
            kind=pl.lit(kind),
            value=pl.Series(rng.integers(1, 6, rows.height).astype(float))
            if kind == "rating"
            else pl.lit(None, dtype=pl.Float64),
            occurred_at="at",
            received_at=pl.col("at") + _delays(rows.height, 500, rng),
            merged_from=pl.lit(None, dtype=pl.String),
        )
        for kind, rows in kinds.items()
    ]
    return pl.concat(found)


def _after(rows: pl.DataFrame, share: float, mean_ms: int, rng: np.random.Generator) -> pl.DataFrame:
    """Keep a share of the rows, each somewhat later."""
    kept = rows.filter(pl.Series(rng.random(rows.height) < share))
    return kept.with_columns(pl.col("at") + _delays(kept.height, mean_ms, rng))


def _delays(size: int, mean_ms: int, rng: np.random.Generator) -> pl.Series:
    return pl.Series(1 + rng.exponential(mean_ms, size).astype(np.int64)).cast(pl.Duration("ms"))


def _named(word: str, numbers: np.ndarray) -> pl.Series:
    """Name things as services do: ids of one length in no order (Knuth's multiplicative permutation)."""
    mixed = numbers.astype(np.uint64) * np.uint64(2_654_435_761) % np.uint64(1 << 32)
    return f"{word}-" + pl.Series(mixed).cast(pl.String).str.zfill(10)


def _ms(day: date) -> int:
    return int(datetime.combine(day, datetime.min.time(), UTC).timestamp() * 1000)
