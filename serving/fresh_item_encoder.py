"""Fresh items (upserted since the bundle was built) -> model inputs, by the encoder of the training rows.

A new item has content only and no counts, as in the training rows of its first day
(`features.build.item_rows`). An item of the bundle keeps last night's counts beside its new content. If it
has moved to another group (for example another category), the totals of the new group are null.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from features.encode import Encoder
from features.online import encode_items
from recsys.inputs import ItemInputs
from recsys.mapped_frame import Frame
from recsys.schema import ATTRIBUTE_PREFIX
from serving.catalogue import ItemRow

_FIXED = {"title": pl.String, "description": pl.String, "category": pl.String, "price": pl.Int64}


class FreshItemEncoder:
    """Encodes upserted catalogue rows.

    Args: items: the bundle's items, in row order; groups: item columns (like category) that have totals.
    """

    def __init__(self, encoder: Encoder, items: Frame, groups: Sequence[str]) -> None:
        self._encoder = encoder
        self._items = items
        self._groups = [group for group in groups if group in items.columns]
        self._attributes = sorted(c for c in items.columns if c.startswith(ATTRIBUTE_PREFIX))

    def encode(self, items: Mapping[int, ItemRow]) -> ItemInputs:
        """Encode items by catalogue row, in the mapping's order."""
        return encode_items(self._encoder, self.frame(items))

    def frame(self, items: Mapping[int, ItemRow]) -> pl.DataFrame:
        """Return raw values: the bundle's row where there is one, with the upserted content in it."""
        height = self._items.height
        previous = self._items.rows([row if row < height else None for row in items])
        content = [pl.Series("item_id", [item.item_id for item in items.values()], dtype=pl.String)]
        content += [
            pl.Series(name, [getattr(item, name) for item in items.values()], dtype=dtype)
            for name, dtype in _FIXED.items()
        ]
        content += [_attribute(name, list(items.values())) for name in self._attributes]
        current = previous.with_columns(content)
        return current.with_columns(
            pl.when(_same(previous, current, group)).then(pl.col(f"^by_{group}__.*$"))
            for group in self._groups
            if any(name.startswith(f"by_{group}__") for name in previous.columns)
        )


def _attribute(name: str, items: Sequence[ItemRow]) -> pl.Series:
    """Make a column typed as in a day's log: numbers, unless any value is text or a list of texts."""
    values: list[object] = [item.attributes.get(name.removeprefix(ATTRIBUTE_PREFIX)) for item in items]
    kinds: set[type] = {type(value) for value in values if value is not None}
    if list in kinds:
        lists = [v if v is None or isinstance(v, list) else [_text(v)] for v in values]
        return pl.Series(name, lists, dtype=pl.List(pl.String))
    if str in kinds or not kinds:
        return pl.Series(name, [None if v is None else _text(v) for v in values], dtype=pl.String)
    return pl.Series(name, values, dtype=pl.Float64, strict=False)


def _text(value: object) -> str:
    """Write an id as the encoder does: 1 and 1.0 are the same id."""
    return value if isinstance(value, str) else f"{value}".removesuffix(".0")


def _same(previous: pl.DataFrame, current: pl.DataFrame, group: str) -> pl.Series:
    return previous[group].cast(pl.String).eq_missing(current[group].cast(pl.String))
