"""The purchases of a wholesaler that does not exist -> purchases.csv and its mapping, for `convert csv`.

Customers order baskets. Each has a standing assortment: items that they take again, at rates of their own,
until they drop them. The rest of a basket is new to them: variants of what they take already (items come in
families), what sells in their line of trade, what is in season, and what has just come.

Legend: C customers, I items, T lines of trade.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

FIRST_DAY = datetime(2025, 1, 6, tzinfo=UTC)
_TRADES = 24
_FAMILY = 6
"""Items of a family are variants of each other."""
_NEW_ITEMS = 0.25
"""Share of the items that come during the year."""
MAPPING = """timezone = "UTC"

[events]
files = "purchases.csv"
user = "customer"
item = "article"
time = "at"
only_kind = "purchase"
"""


@dataclass(frozen=True, kw_only=True)
class Wholesaler:
    """How large it is, and how much its customers take again."""

    customers: int = 4_400
    items: int = 3_700
    rows: int = 400_000
    days: int = 365
    again: float = 0.45
    """Share of a basket that comes from the standing assortment, where there is one."""
    seed: int = 0


class _Catalogue:
    """What items there are, and how they sell: popularity, family, line of trade, season, first day."""

    def __init__(self, shop: Wholesaler, rng: np.random.Generator) -> None:
        count, self._days = shop.items, shop.days
        self.family = np.arange(count) // _FAMILY
        families = int(self.family[-1]) + 1
        # A family sells in a few lines of trade; its variants sell more or less.
        self.trades = rng.dirichlet(np.full(_TRADES, 0.15), families)[self.family]
        self.appeal = rng.zipf(1.6, families)[self.family].clip(max=300) ** 0.8 * rng.lognormal(0, 0.7, count)
        self.peak = rng.uniform(0, shop.days, families)[self.family]
        self.seasonal = rng.random(families)[self.family] < 0.3
        self.since = np.where(rng.random(count) < _NEW_ITEMS, rng.uniform(0, shop.days, count), -1.0)

    def sells(self, day: float) -> np.ndarray:
        """Give how much each item sells on a day [I]: more in its season and when it is new, 0 before."""
        away = np.abs((day - self.peak + self._days / 2) % self._days - self._days / 2)
        season = np.where(self.seasonal, 0.2 + 3.0 * np.exp(-((away / 40) ** 2)), 1.0)
        novelty = 1.0 + 2.0 * np.exp(-np.maximum(day - self.since, 0.0) / 30) * (self.since >= 0)
        found: np.ndarray = self.appeal * season * novelty * (self.since <= day)
        return found


class _Customer:
    """One customer: line of trade, basket size, and the standing assortment [item -> rate]."""

    def __init__(self, catalogue: _Catalogue, rng: np.random.Generator) -> None:
        self.tastes = catalogue.trades @ rng.dirichlet(np.full(_TRADES, 0.2))
        self.basket = float(np.exp(rng.normal(2.6, 0.8)))
        self.standing: dict[int, float] = {}

    def order(
        self, catalogue: _Catalogue, sells: np.ndarray, again: float, rng: np.random.Generator
    ) -> list[int]:
        """Take a basket, and change the assortment by it."""
        size = max(1, int(rng.poisson(self.basket)))
        kept = min(int(rng.binomial(size, again)), len(self.standing))
        taken = set[int]()
        if kept:
            items, rates = np.array(list(self.standing)), np.array(list(self.standing.values()))
            taken |= set(rng.choice(items, kept, replace=False, p=rates / rates.sum()).tolist())
        chance = sells * (self.tastes + 0.002)
        for item in self.standing:  # variants of what is known sell better
            chance[(item // _FAMILY) * _FAMILY : (item // _FAMILY + 1) * _FAMILY] *= 2.5
        chance[list(self.standing)] = 0.0
        wanted = min(size - kept, int((chance > 0).sum()))
        if wanted:
            fresh = rng.choice(chance.size, wanted, replace=False, p=chance / chance.sum()).tolist()
            taken |= set(fresh)
            self.standing |= {item: float(rng.gamma(0.7)) + 0.05 for item in fresh if rng.random() < 0.7}
        for item in [item for item in self.standing if rng.random() < 0.05]:
            del self.standing[item]
        return sorted(taken)


def purchases(shop: Wholesaler) -> pl.DataFrame:
    """Give the year's rows, in the order of time: at, customer, article, pounds."""
    rng = np.random.default_rng(shop.seed)
    catalogue = _Catalogue(shop, rng)
    customers = [_Customer(catalogue, rng) for _ in range(shop.customers)]
    prices = np.exp(rng.normal(1.0, 0.9, shop.items)).round(2)
    rows: list[tuple[datetime, str, str, float]] = []
    sells, today = catalogue.sells(0.0), 0
    for day, who in _visits(shop, customers, rng):
        if int(day) != today:
            sells, today = catalogue.sells(day), int(day)
        at = FIRST_DAY + timedelta(days=int(day), seconds=int(8 * 3600 + 36_000 * (day % 1)))
        basket = customers[who].order(catalogue, sells, shop.again, rng)
        pounds = prices[basket] * rng.integers(1, 13, len(basket))
        rows += [
            (at, f"c{who:05d}", f"a{item:05d}", float(paid))
            for item, paid in zip(basket, pounds, strict=True)
        ]
    names = ["at", "customer", "article", "pounds"]
    return pl.DataFrame(rows, schema=names, orient="row")


def _visits(
    shop: Wholesaler, customers: list[_Customer], rng: np.random.Generator
) -> Iterator[tuple[float, int]]:
    """Give (day, customer) in the order of time: a few order every week, most a few times a year."""
    activity = rng.lognormal(0.0, 1.1, shop.customers)
    begins = np.where(rng.random(shop.customers) < 0.4, rng.uniform(0, shop.days, shop.customers), 0.0)
    expected = activity * (1 - begins / shop.days)
    lines = float(sum(e * c.basket for e, c in zip(expected, customers, strict=True)))
    visits: list[tuple[float, int]] = []
    for who, count in enumerate(rng.poisson(expected * shop.rows / lines)):
        days = rng.uniform(begins[who], shop.days, count)
        visits += [(float(day), who) for day in days if int(day) % 7 != 5]  # closed on Saturdays
    return iter(sorted(visits))


def write_log(folder: Path, shop: Wholesaler) -> None:
    """Write purchases.csv and mapping.toml into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = purchases(shop).with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    rows.write_csv(folder / "purchases.csv")
    (folder / "mapping.toml").write_text(MAPPING)
