"""A snapshot -> the table of items' neighbours, from what its users have taken; one table a snapshot.

Shapes: I items, A values of attributes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import polars as pl

from features.taken import TABLE
from recsys.config import ItemItemConfig, RunConfig
from recsys.item_item.directed import Setting, Sums, build_directed
from recsys.item_item.ease import build_ease
from recsys.item_item.histories import Histories
from recsys.item_item.knn import build_item_knn
from recsys.item_item.neighbours import PADDING, ItemItem
from recsys.item_item.pair_counts import count_pairs
from recsys.item_item.walks import blend, build_walks
from recsys.snapshot import DaySnapshot
from recsys.source_terms import NO_SOURCES, SourceTerms

MOST_CELLS = 40_000_000
"""Neighbours of all items together, 8 bytes each: a table of a million items has 40 an item."""
MOST_SUMMED = 5_000_000
"""Events, 200 a user at most, of which all pairs are in memory at once, a few GB: of more events no order is
counted, and above EASE's size no attributes."""
WALKS = 0.3
"""Share of walks where they are counted."""
FORMS: Final[Mapping[str, tuple[str, bool | float]]] = {
    "item_item_order": ("order", True),
    "item_item_attributes": ("attributes", True),
    "item_item_walks": ("walks", WALKS),
    "item_item_positive": ("positive", True),
}
"""Field of the terms -> its switch in the config, and its value when it is on."""
_KINDS_OF_NAMES: Final = ("categorical", "multi_hot")
_KEPT = 4
"""Tables in memory: a night asks for that of a day for each bundle that it makes or measures."""


def item_item_table(
    snapshot: DaySnapshot, config: RunConfig, item_ids: pl.Series, terms: SourceTerms = NO_SOURCES
) -> ItemItem | None:
    """Make the table of a catalogue's rows; None where nobody took anything, or no table is wanted.

    The same for any number of parts that the users are split into. Args: terms: say what it counts.
    """
    if not config.item_item.candidates or not config.taking_kinds:
        return None
    columns = attribute_columns(config) if terms.item_item_attributes else ()
    counts = _Counted(
        order=terms.item_item_order,
        columns=columns,
        walks=terms.item_item_walks,
        positive=terms.item_item_positive,
    )
    return _built(_Snapshot(snapshot), config.taking_kinds, config.item_item, _Ids(item_ids), counts)


def switched_on(config: RunConfig) -> SourceTerms:
    """Give the form of the table that the config says, without anything that a night asks lists for."""
    settings = config.item_item
    on = {field: value for field, (switch, value) in FORMS.items() if getattr(settings, switch) == "on"}
    return NO_SOURCES.model_copy(update=on)


def attribute_columns(config: RunConfig) -> tuple[str, ...]:
    """Name the columns of items that may say what items have in common."""
    declared = (f.column for f in config.attributes if f.entity == "item" and f.kind in _KINDS_OF_NAMES)
    return tuple(dict.fromkeys(("category", *config.features.group_items_by, *declared)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """What a table counts beside what is taken together."""

    order: bool
    columns: tuple[str, ...]
    """Of the items: what they have in common."""
    walks: float
    positive: bool


@lru_cache(maxsize=_KEPT)
def _built(
    of: "_Snapshot", kinds: tuple[str, ...], settings: ItemItemConfig, ids: "_Ids", counted: _Counted
) -> ItemItem | None:
    histories = _histories(of.snapshot, kinds, ids.item_ids)
    if not histories.items.size:
        return None
    num_items = ids.item_ids.len()
    most = max(1, min(settings.neighbours, MOST_CELLS // num_items, num_items))
    attributes = attributes_of(of.snapshot, ids.item_ids, counted.columns) if counted.columns else None
    table = _of_histories(
        histories, num_items, settings, attributes, order=counted.order, most=most, positive=counted.positive
    )
    if not counted.walks:
        return table
    return blend(table, build_walks(histories.matrix(num_items), most=most), counted.walks)


def _of_histories(
    histories: Histories,
    num_items: int,
    settings: ItemItemConfig,
    attributes: Any,
    *,
    order: bool,
    most: int,
    positive: bool,
) -> ItemItem:
    cosines = num_items > settings.ease_items
    if histories.items.size > MOST_SUMMED:
        order, attributes = False, None if cosines else attributes
    if order or attributes is not None:
        setting = Setting(penalty=settings.penalty)
        sums = Sums.of(histories, num_items, setting.recency, order=order)
        return build_directed(sums, setting, attributes, most=most, positive=positive, cosines=cosines)
    if cosines:
        return build_item_knn(histories.matrix(num_items), most=most)
    return build_ease(count_pairs(histories, num_items), settings.penalty, most=most, positive=positive)


def attributes_of(snapshot: DaySnapshot, item_ids: pl.Series, columns: Sequence[str]) -> Any:
    """Give which items [I] have which value of some columns: sparse [I, A]; None where no item has any."""
    from scipy import sparse

    items = snapshot.table("items")
    rows = pl.DataFrame({"item_id": item_ids, "row": np.arange(item_ids.len(), dtype=np.int64)})
    names = [name for name in columns if name in items.columns]
    known = items.select("item_id", *names).join(rows, on="item_id")
    pairs = [_values(known, name) for name in names]
    held = pl.concat(pairs).drop_nulls().unique() if pairs else pl.DataFrame()
    if not held.height:
        return None
    value = held.select(pl.struct("column", "value").rank("dense")).to_series().to_numpy() - 1
    cells = (np.ones(held.height, np.float32), (held["row"].to_numpy(), value))
    return sparse.csr_matrix(cells, (item_ids.len(), int(value.max()) + 1))


def _values(items: pl.DataFrame, name: str) -> pl.DataFrame:
    """List an item's row with each of its values of one column: column, row, value."""
    found = items.select("row", value=name)
    if isinstance(found.schema["value"], pl.List):
        found = found.explode("value")
    return found.select(pl.lit(name).alias("column"), "row", pl.col("value").cast(pl.String))


def with_rows_of(table: ItemItem, item_ids: pl.Series, others: pl.Series) -> ItemItem:
    """Give a table's neighbours by the rows of another catalogue; items that it lacks have none."""
    known = pl.DataFrame({"id": others, "other": np.arange(others.len(), dtype=np.int32)})
    places = item_ids.alias("id").to_frame().join(known, on="id", how="left", maintain_order="left")["other"]
    row_of = places.fill_null(-1).to_numpy()
    there = (table.neighbours >= 0) & (row_of[table.neighbours] >= 0)
    neighbours = np.full((others.len(), table.neighbours.shape[1]), PADDING, np.int32)
    weights = np.zeros(neighbours.shape, np.float32)
    mine = row_of >= 0
    neighbours[row_of[mine]] = np.where(there, row_of[table.neighbours], PADDING)[mine]
    weights[row_of[mine]] = np.where(there, table.weights, np.float32(0))[mine]
    return ItemItem(neighbours=neighbours, weights=weights)


def _histories(snapshot: DaySnapshot, kinds: tuple[str, ...], item_ids: pl.Series) -> Histories:
    """Read what users took; column by column, for all of a large table's would take several GB."""
    catalogue = pl.DataFrame({"item_id": item_ids, "row": np.arange(item_ids.len(), dtype=np.int32)})
    rows = _numbered(snapshot.table(TABLE, columns=["item_id"]), catalogue)
    taken = rows.is_not_null() & snapshot.table(TABLE, columns=["kind"])["kind"].is_in(list(kinds))
    users = snapshot.table(TABLE, columns=["user_id"]).filter(taken)
    distinct = users.unique().sort("user_id").with_row_index("row")
    events = pl.DataFrame({"user": _numbered(users, distinct), "item": rows.filter(taken)})
    instants = snapshot.table(TABLE, columns=["received_at", "feedback_id"]).filter(taken)
    events = events.hstack(instants).sort("user", "received_at", "feedback_id").select("user", "item")
    users_of = events["user"].to_numpy().astype(np.int64)
    return Histories.of(users_of, events["item"].to_numpy(), num_users=distinct.height)


def _numbered(ids: pl.DataFrame, known: pl.DataFrame) -> pl.Series:
    """Give each id's row, null where it is not known. Args: ids: one column; known: it, and its `row`."""
    return ids.join(known, on=ids.columns, how="left", maintain_order="left")["row"]


class _Snapshot:
    """A snapshot as a key: its folder is named by a hash of all that it was made of."""

    def __init__(self, snapshot: DaySnapshot) -> None:
        self.snapshot = snapshot

    def __hash__(self) -> int:
        return hash(self.snapshot.path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Snapshot) and self.snapshot.path == other.snapshot.path


class _Ids:
    """Item ids as a key."""

    def __init__(self, item_ids: pl.Series) -> None:
        self.item_ids = item_ids

    def __hash__(self) -> int:
        return hash((self.item_ids.len(), int(self.item_ids.hash(0).sum())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ids) and self.item_ids.equals(other.item_ids)
