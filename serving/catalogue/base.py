"""The bundle's items as arrays: ids, categories, and the bitmaps of the filters. Never changed.

`write` puts them into a folder, and `open_folder` maps them: processes of one host have the arrays in memory
once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from recsys.id_table import IdTable
from recsys.mapped_frame import Frame, FrameInMemory
from recsys.mapped_tensors import map_array
from recsys.schema import ATTRIBUTE_PREFIX
from recsys.stages import write_json
from serving.catalogue.filters import NO_CATEGORY, NO_END, NO_START, Availability, Categories, Prices
from serving.catalogue.items import ItemRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMES = "category_names.json"
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
    items: Frame
    """The bundle's, whole."""

    @classmethod
    def from_frame(cls, items: pl.DataFrame) -> "BaseCatalogue":
        """Read a frame with the canonical columns of items, in the bundle's order; columns may be missing."""
        category = _column(items, "category", pl.String)
        names = _category_names(items)
        numbers = pl.DataFrame({"name": names, "code": np.arange(names.len(), dtype=np.int32)})
        codes = (
            category.alias("name")
            .to_frame()
            .join(numbers, on="name", how="left", maintain_order="left")["code"]
            .fill_null(NO_CATEGORY)
            .to_numpy()
        )
        return cls(
            ids=IdTable.of(items["item_id"]),
            category_names=tuple(names.to_list()),
            category_codes={name: code for code, name in enumerate(names.to_list())},
            categories=Categories.of(codes, names.len()),
            availability=Availability.of(
                _instants(items, "available_from", NO_START), _instants(items, "available_until", NO_END)
            ),
            prices=Prices.of(_column(items, "price", pl.Float64).fill_null(np.nan).to_numpy()),
            items=FrameInMemory(items),
        )

    def write(self, folder: Path) -> None:
        """Write the arrays into an empty folder."""
        folder.mkdir(parents=True, exist_ok=True)
        parts = {
            "ids": self.ids.arrays,
            "categories": self.categories.arrays,
            "availability": self.availability.arrays,
            "prices": self.prices.arrays,
        }
        for part, arrays in parts.items():
            for name, array in arrays.items():
                np.save(folder / f"{part}.{name}.npy", array)
        write_json(folder / _NAMES, self.category_names)

    @classmethod
    def open_folder(cls, folder: Path, items: Frame) -> "BaseCatalogue":
        """Map what `write` wrote; the caller has made sure that nobody else could change it.

        Args: items: the frame that it was made of.
        Raises: OSError when a file is not there.
        """
        ids = IdTable(**_mapped(folder, "ids"))
        names = json.loads((folder / _NAMES).read_text())
        return cls(
            ids=ids,
            category_names=tuple(names),
            category_codes={name: code for code, name in enumerate(names)},
            categories=Categories(_mapped(folder, "categories")),
            availability=Availability(_mapped(folder, "availability"), len(ids)),
            prices=Prices(_mapped(folder, "prices")),
            items=items,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def title(self, row: int) -> str | None:
        """Return a row's title."""
        return self.items.text("title", row) if "title" in self.items.columns else None

    def titles(self, rows: np.ndarray) -> list[str | None]:
        """List the titles of rows [N]."""
        if "title" not in self.items.columns:
            return [None] * rows.size
        return self.items.texts("title", rows)

    def item(self, row: int) -> ItemRow:
        """Return a row whole."""
        known = [name for name in self.items.columns if name in _CONTENT or _is_attribute(name)]
        values = self.items.rows([row], known).row(0, named=True)
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
                if _is_attribute(name) and value is not None
            },
        )


def _is_attribute(column: str) -> bool:
    return column.startswith(ATTRIBUTE_PREFIX)


def _category_names(items: pl.DataFrame) -> pl.Series:
    return _column(items, "category", pl.String).drop_nulls().unique().sort()


def _mapped(folder: Path, part: str) -> Mapping[str, np.ndarray]:
    """Map the arrays of a part, by name."""
    found = {}
    for path in sorted(folder.glob(f"{part}.*.npy")):
        found[path.name.split(".")[1]] = map_array(path)
    if not found:
        raise FileNotFoundError(f"{folder} holds no {part}")
    return found


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
