"""Small made-up logs as CSV files, one of each kind that people have; seeded, so the same on every run."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

START = datetime(2026, 1, 5)  # a Monday
_GROUPS = 6
Rows = Iterator[tuple[str, str, str, datetime, int | None]]
"""User, item, kind, time, and a position or a number of stars."""


@dataclass(frozen=True, slots=True)
class MadeLog:
    """One log: its rows, and the mapping that reads them."""

    rows: Callable[..., Rows]
    """Takes a generator, and sizes by name."""
    mapping: str


def wholesaler(rng: np.random.Generator, *, customers: int = 100, items: int = 400, weeks: int = 16) -> Rows:
    """Give purchases only: customers order what they always order, on working days, and try something new."""
    fame, group = _fame(rng, items), np.arange(items) % _GROUPS
    for customer in range(customers):
        liked = fame * np.where(group == customer % _GROUPS, 6.0, 1.0)
        staples = _draw(rng, liked, 12)
        need = rng.dirichlet(np.full(12, 0.7))
        weekday = int(rng.integers(5))
        for week in range(weeks):
            if rng.random() < 0.25:
                continue
            basket = {*_draw(rng, need, 3, of=staples), *_draw(rng, liked, 3)}
            at = START + timedelta(weeks=week, days=weekday, hours=9, seconds=int(rng.integers(20_000)))
            for item in sorted(basket):
                yield f"c{customer}", f"p{item}", "order", at, None


def funnel(
    rng: np.random.Generator, *, users: int = 300, items: int = 300, days: int = 12, purchases: bool = True
) -> Rows:
    """Give lists that were shown, the clicks on them, and purchases of what was clicked; one list a day."""
    fame, group = _fame(rng, items), np.arange(items) % _GROUPS
    bought: set[tuple[int, int]] = set()
    for day in range(days):
        for user in range(users):
            if rng.random() < 0.35:
                continue
            at = START + timedelta(days=day, hours=8, seconds=int(rng.integers(40_000)))
            for place, item in enumerate(_draw(rng, fame, 8)):
                yield f"u{user}", f"i{item}", "view", at, place + 1
                if rng.random() > (0.45 if group[item] == user % _GROUPS else 0.12):
                    continue
                clicked = at + timedelta(seconds=float(rng.exponential(40)) + 1)
                yield f"u{user}", f"i{item}", "click", clicked, None
                if purchases and rng.random() < (0.02 if (user, item) in bought else 0.45):
                    bought.add((user, item))
                    paid = clicked + timedelta(seconds=float(rng.exponential(600)) + 5)
                    yield f"u{user}", f"i{item}", "buy", paid, None


def clicks(rng: np.random.Generator, **sizes: int) -> Rows:
    """Give lists that were shown, and the clicks on them."""
    return funnel(rng, purchases=False, **sizes)


def ratings(rng: np.random.Generator, *, users: int = 300, items: int = 200, days: int = 30) -> Rows:
    """Give stars only: each user rates some items, each once."""
    fame, group = _fame(rng, items), np.arange(items) % _GROUPS
    for user in range(users):
        liked = fame * np.where(group == user % _GROUPS, 4.0, 1.0)
        for item in _draw(rng, liked, 24):
            likes = 4.2 if group[item] == user % _GROUPS else 2.8
            stars = int(np.clip(round(rng.normal(likes, 0.8)), 1, 5))
            at = START + timedelta(seconds=int(rng.integers(days * 86_400)))
            yield f"u{user}", f"m{item}", "rating", at, stars


_IN_LISTS = """timezone = "UTC"
[events]
files = "events.csv"
user = "user"
item = "item"
kind = "kind"
time = "time"
position = "number"
[events.kinds]
view = "impression"
click = "click"
"""
_ITEMS = """
[items]
files = "items.csv"
id = "item"
title = "title"
category = "category"
"""
MADE: Mapping[str, MadeLog] = {
    "purchases": MadeLog(
        wholesaler,
        """timezone = "UTC"
[feedback]
files = "events.csv"
user = "user"
item = "item"
only_kind = "order"
time = "time"
""",
    ),
    "ratings": MadeLog(
        ratings,
        """timezone = "UTC"
[feedback]
files = "events.csv"
user = "user"
item = "item"
only_kind = "rating"
value = "number"
time = "time"
""",
    ),
    "clicks": MadeLog(clicks, _IN_LISTS),
    "funnel": MadeLog(funnel, _IN_LISTS + 'buy = "purchase"\n'),
}


def write_log(name: str, folder: Path, seed: int = 1, **sizes: int) -> Path:
    """Write a made log's files into a folder; give its mapping's file."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(MADE[name].rows(np.random.default_rng(seed), **sizes))
    frame = pl.DataFrame(rows, schema=["user", "item", "kind", "time", "number"], orient="row")
    frame = frame.sort("time", maintain_order=True)
    items = frame.select("item").unique().sort("item")
    number = pl.col("item").str.slice(1).cast(pl.Int64)
    items = items.with_columns(
        title=pl.format("thing {}", number), category=pl.format("c{}", number % _GROUPS)
    )
    items.write_csv(folder / "items.csv")
    frame.with_columns(pl.col("time").dt.strftime("%Y-%m-%d %H:%M:%S")).write_csv(folder / "events.csv")
    mapping = folder / "mapping.toml"
    mapping.write_text(MADE[name].mapping + _ITEMS, encoding="utf-8")
    return mapping


def _fame(rng: np.random.Generator, items: int) -> np.ndarray:
    fame: np.ndarray = 1.0 / (1.0 + rng.permutation(items)) ** 0.7
    return fame


def _draw(
    rng: np.random.Generator, weights: np.ndarray, count: int, of: np.ndarray | None = None
) -> np.ndarray:
    among = np.arange(weights.size) if of is None else of
    found: np.ndarray = rng.choice(among, count, replace=False, p=weights / weights.sum())
    return found
