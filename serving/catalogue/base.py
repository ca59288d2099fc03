"""The bundle's items as arrays: ids, categories, and the bitmaps of the filters. Never changed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from recsys.id_table import IdTable
from recsys.schema import ATTRIBUTE_PREFIX
from serving.catalogue.filters import NO_CATEGORY, NO_END, NO_START, Availability, Categories, Prices
from serving.catalogue.items import ItemRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CONTENT = ("item_id", "title", "description", "category", "price", "available_from", "available_until")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseCatalogue:
    """Items by row, I rows."""

    ids: IdTable
    category_names: tuple[str, ...]
    """Sorted; their positions are the codes."""
    category_codes: dict[str, int]
    categories: Categories
    availability: Availability
    prices: Prices
    content: pl.DataFrame
    """The columns of `ItemRow`, those that there are."""

    @classmethod
    def from_frame(cls, items: pl.DataFrame) -> "BaseCatalogue":
        """Read a frame with the canonical columns of items, in the bundle's order; columns may be missing."""
        category = _column(items, "category", pl.String)
        names = category.drop_nulls().unique().sort()
        numbers = pl.DataFrame({"name": names, "code": np.arange(names.len(), dtype=np.int32)})
        codes = (
            category.alias("name")
            .to_frame()
            .join(numbers, on="name", how="left", maintain_order="left")["code"]
            .fill_null(NO_CATEGORY)
            .to_numpy()
        )
        attributes = [name for name in items.columns if name.startswith(ATTRIBUTE_PREFIX)]
        return cls(
            ids=IdTable.of(items["item_id"]),
            category_names=tuple(names.to_list()),
            category_codes={name: code for code, name in enumerate(names.to_list())},
            categories=Categories(codes, names.len()),
            availability=Availability(
                _instants(items, "available_from", NO_START), _instants(items, "available_until", NO_END)
            ),
            prices=Prices(_column(items, "price", pl.Float64).fill_null(np.nan).to_numpy()),
            content=items.select(*(name for name in _CONTENT if name in items.columns), *attributes),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def title(self, row: int) -> str | None:
        """Return a row's title."""
        title: str | None = self.content["title"][row] if "title" in self.content.columns else None
        return title

    def item(self, row: int) -> ItemRow:
        """Return a row whole."""
        values = self.content.row(row, named=True)
        return ItemRow(
            item_id=values["item_id"],
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


def _column(items: pl.DataFrame, name: str, dtype: type[pl.DataType]) -> pl.Series:
    if name not in items.columns:
        return pl.Series(name, [None], dtype=dtype).new_from_index(0, items.height)
    return items[name].cast(dtype)


def _instants(items: pl.DataFrame, name: str, missing: int) -> np.ndarray:
    if name not in items.columns:
        return np.full(items.height, missing, dtype=np.int64)
    return items[name].dt.epoch("ms").cast(pl.Int64).fill_null(missing).to_numpy()


def _milliseconds(instant: datetime | None) -> int | None:
    return None if instant is None else (instant - _EPOCH) // timedelta(milliseconds=1)
