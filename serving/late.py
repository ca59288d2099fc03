"""Upserted items -> the model's inputs, by the encoder that fills training rows.

A new item is known by its content alone, as in the training rows of its first day
(`features.build.item_rows`): no counts yet. An item of the bundle keeps last night's counts beside its new
content; the totals of a group that it was not in last night (another category) are not known.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from features.encode import Encoder
from features.online import encode_items
from recsys.inputs import ItemInputs
from recsys.schema import ATTRIBUTE_PREFIX
from serving.catalogue import ItemRow

_FIXED = {"title": pl.String, "description": pl.String, "category": pl.String, "price": pl.Int64}


class LateEncoder:
    """Encodes catalogue rows that were upserted.

    Args: items: the bundle's catalogue, in the order of its rows; groups: columns with totals of their own.
    """

    def __init__(self, encoder: Encoder, items: pl.DataFrame, groups: Sequence[str]) -> None:
        self._encoder = encoder
        self._items = items
        self._groups = [group for group in groups if group in items.columns]
        self._attributes = sorted(c for c in items.columns if c.startswith(ATTRIBUTE_PREFIX))

    def encode(self, items: Mapping[int, ItemRow]) -> ItemInputs:
        """Encode items by catalogue row, in the mapping's order."""
        return encode_items(self._encoder, self.frame(items))

    def frame(self, items: Mapping[int, ItemRow]) -> pl.DataFrame:
        """Give the raw values: last night's row where there is one, under the content as it is now."""
        rows = pl.Series("row", [row if row < self._items.height else None for row in items], dtype=pl.Int64)
        before = self._items.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
        known = rows.to_frame().join(before, on="row", how="left", maintain_order="left").drop("row")
        content = [pl.Series("item_id", [item.item_id for item in items.values()], dtype=pl.String)]
        content += [
            pl.Series(name, [getattr(item, name) for item in items.values()], dtype=dtype)
            for name, dtype in _FIXED.items()
        ]
        content += [_attribute(name, list(items.values())) for name in self._attributes]
        now = known.with_columns(content)
        return now.with_columns(
            pl.when(_same(known, now, group)).then(pl.col(f"^by_{group}__.*$"))
            for group in self._groups
            if any(name.startswith(f"by_{group}__") for name in known.columns)
        )


def _attribute(name: str, items: Sequence[ItemRow]) -> pl.Series:
    """Make a column as a day's log would hold it: numbers, unless any value is text or a list of texts."""
    values: list[object] = [item.attributes.get(name.removeprefix(ATTRIBUTE_PREFIX)) for item in items]
    kinds: set[type] = {type(value) for value in values if value is not None}
    if list in kinds:
        lists = [v if v is None or isinstance(v, list) else [_text(v)] for v in values]
        return pl.Series(name, lists, dtype=pl.List(pl.String))
    if str in kinds or not kinds:
        return pl.Series(name, [None if v is None else _text(v) for v in values], dtype=pl.String)
    return pl.Series(name, values, dtype=pl.Float64, strict=False)


def _text(value: object) -> str:
    """Write an id as the encoder does: 1 and 1.0 are one."""
    return value if isinstance(value, str) else f"{value}".removesuffix(".0")


def _same(known: pl.DataFrame, now: pl.DataFrame, group: str) -> pl.Series:
    return known[group].cast(pl.String).eq_missing(now[group].cast(pl.String))
