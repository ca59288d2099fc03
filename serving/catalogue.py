"""The catalogue in memory: which items exist, and which of them a request may be answered with.

A Catalogue is immutable: an upsert makes a new one. The first `num_in_bundle` rows are the bundle's, in its
order, so that catalogue and scorer share row numbers. Items upserted later follow.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.mask import Mask
from recsys.schema import ATTRIBUTE_PREFIX
from serving.request import Filter

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_START = np.iinfo(np.int64).min
_NO_END = np.iinfo(np.int64).max
NO_CATEGORY = -1
_Number = TypeVar("_Number", np.int64, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRow:
    """One row of the canonical items table."""

    item_id: str
    title: str | None = None
    description: str | None = None
    category: str | None = None
    price: int | None = None
    available_from_ms: int | None = None
    available_until_ms: int | None = None
    attributes: Mapping[str, str | float] = field(default_factory=dict)
    at_ms: int = 0
    """When it was upserted; 0: the row is the bundle's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Items by row; N rows."""

    item_ids: tuple[str, ...]
    titles: tuple[str | None, ...]
    categories: npt.NDArray[np.int64]
    """[N], positions in `category_names`; NO_CATEGORY where there is none."""
    category_names: tuple[str, ...]
    prices: npt.NDArray[np.float64]
    """[N], minor units; NaN where there is none."""
    available_from: npt.NDArray[np.int64]
    """[N], milliseconds."""
    available_until: npt.NDArray[np.int64]
    """[N], milliseconds; the item is not available from this instant on."""
    rows: Mapping[str, int]
    """item_id -> row."""
    num_in_bundle: int
    source: pl.DataFrame | None = field(default=None, repr=False)
    """The frame behind the bundle's rows."""

    @classmethod
    def from_frame(cls, items: pl.DataFrame) -> "Catalogue":
        """Read a frame with the canonical columns of items, in the bundle's order; columns may be missing."""
        ids = items["item_id"].to_list()
        names = sorted(set(_column(items, "category", pl.String).drop_nulls().to_list()))
        numbers = {name: number for number, name in enumerate(names)}
        categories = [
            numbers.get(name, NO_CATEGORY) for name in _column(items, "category", pl.String).to_list()
        ]
        return cls(
            item_ids=tuple(ids),
            titles=tuple(_column(items, "title", pl.String).to_list()),
            categories=np.array(categories, dtype=np.int64),
            category_names=tuple(names),
            prices=_column(items, "price", pl.Float64).fill_null(np.nan).to_numpy().copy(),
            available_from=_instants(items, "available_from", _NO_START),
            available_until=_instants(items, "available_until", _NO_END),
            rows={item_id: row for row, item_id in enumerate(ids)},
            num_in_bundle=len(ids),
            source=items,
        )

    def __len__(self) -> int:
        return len(self.item_ids)

    def allowed(self, conditions: Filter, forbidden: Iterable[str], at_ms: int) -> Mask:
        """Return the rows that a request may be answered with."""
        mask = np.ones(len(self), dtype=np.bool_)
        if conditions.allow_item_ids:
            mask[:] = False
            mask[self.rows_of(conditions.allow_item_ids)] = True
        if not conditions.include_unavailable:
            mask &= (self.available_from <= at_ms) & (at_ms < self.available_until)
        if conditions.categories:
            mask &= self._of_categories(conditions.categories)
        if conditions.min_price is not None:
            mask &= self.prices >= conditions.min_price
        if conditions.max_price is not None:
            mask &= self.prices <= conditions.max_price
        mask[self.rows_of(forbidden)] = False
        return Mask.of_bools(mask)

    def rows_of(self, item_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the rows of the ids that the catalogue has, in their order."""
        found = (self.rows.get(item_id) for item_id in item_ids)
        return np.array([row for row in found if row is not None], dtype=np.int64)

    def category_of(self, row: int) -> str | None:
        """Return the name of a row's category."""
        number = int(self.categories[row])
        return None if number == NO_CATEGORY else self.category_names[number]

    def with_items(self, items: Iterable[ItemRow]) -> "Catalogue":
        """Return a catalogue in which these items replace their rows, or are appended when they are new."""
        changed = {item.item_id: item for item in items}
        if not changed:
            return self
        new_ids = [item_id for item_id in changed if item_id not in self.rows]
        rows = {**self.rows, **{item_id: len(self) + i for i, item_id in enumerate(new_ids)}}
        names = {name: number for number, name in enumerate(self.category_names)}
        for item in changed.values():
            if item.category is not None:
                names.setdefault(item.category, len(names))
        at_rows = [rows[item_id] for item_id in changed]
        titles = [*self.titles, *([None] * len(new_ids))]
        for row, item in zip(at_rows, changed.values(), strict=True):
            titles[row] = item.title
        values = list(changed.values())
        starts = [_or_default(i.available_from_ms, _NO_START) for i in values]
        ends = [_or_default(i.available_until_ms, _NO_END) for i in values]
        prices = [np.nan if i.price is None else i.price for i in values]
        return replace(
            self,
            item_ids=(*self.item_ids, *new_ids),
            titles=tuple(titles),
            category_names=tuple(names),
            categories=_with_values(
                self.categories, at_rows, [_number(names, item.category) for item in values]
            ),
            prices=_with_values(self.prices, at_rows, prices),
            available_from=_with_values(self.available_from, at_rows, starts),
            available_until=_with_values(self.available_until, at_rows, ends),
            rows=rows,
        )

    def bundle_item(self, item_id: str) -> ItemRow | None:
        """Return an item's row as in the bundle; None when the bundle does not have it."""
        row = self.rows.get(item_id)
        if row is None or row >= self.num_in_bundle or self.source is None:
            return None
        values = self.source.row(row, named=True)
        return ItemRow(
            item_id=item_id,
            title=values.get("title"),
            description=values.get("description"),
            category=values.get("category"),
            price=values.get("price"),
            available_from_ms=_milliseconds(values.get("available_from")),
            available_until_ms=_milliseconds(values.get("available_until")),
            attributes={
                name.removeprefix(ATTRIBUTE_PREFIX): value
                for name, value in values.items()
                if name.startswith(ATTRIBUTE_PREFIX) and value is not None
            },
        )

    def _of_categories(self, names: frozenset[str]) -> npt.NDArray[np.bool_]:
        wanted = [number for number, name in enumerate(self.category_names) if name in names]
        return np.isin(self.categories, wanted)


def _column(items: pl.DataFrame, name: str, dtype: type[pl.DataType]) -> pl.Series:
    if name not in items.columns:
        return pl.Series(name, [None] * items.height, dtype=dtype)
    return items[name].cast(dtype)


def _instants(items: pl.DataFrame, name: str, missing: int) -> npt.NDArray[np.int64]:
    if name not in items.columns:
        return np.full(items.height, missing, dtype=np.int64)
    return items[name].dt.epoch("ms").cast(pl.Int64).fill_null(missing).to_numpy().copy()


def _milliseconds(instant: datetime | None) -> int | None:
    return None if instant is None else (instant - _EPOCH) // timedelta(milliseconds=1)


def _with_values(
    column: "npt.NDArray[_Number]", at_rows: list[int], values: Sequence[float]
) -> "npt.NDArray[_Number]":
    size = max(len(column), max(at_rows) + 1)
    grown = np.empty(size, dtype=column.dtype)
    grown[: len(column)] = column
    grown[at_rows] = values
    return grown


def _number(names: Mapping[str, int], category: str | None) -> int:
    return NO_CATEGORY if category is None else names[category]


def _or_default(value: int | None, default: int) -> int:
    return default if value is None else value
