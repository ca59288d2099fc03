"""Inputs of a model, part by part, and rows whose values of a part are those of other rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from benchmarks.quality.inside_lists.list_rows import ListRows, one_cross_a_row
from features.definitions import FeatureSet
from features.encode import Encoded
from features.kinds.number import Number
from recsys.config import Entity
from recsys.inputs import Bag
from training.data import EncodedRows

Side = Literal["item", "user"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Inputs that are exchanged together."""

    name: str
    side: Side
    """item: exchanged among the rows of a list; user: for those of another user."""
    entity: Entity | None = None
    ids: tuple[int, ...] = ()
    """Places among the entity's ids."""
    bags: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()
    """Columns of the entity's numbers."""
    text: bool = False
    history: bool = False
    cross: int | None = None
    """Place among the crosses."""


def parts_of(features: FeatureSet, *, text: bool) -> list[Part]:
    """Cut a model's inputs into parts, the user's first.

    Ids, lists of ids and declared numbers of an item stand alone; what is counted of the log stands together:
    counts, and rates and means, each for the item itself and for every column that items are grouped by.
    """
    found = [
        Part(name="history", side="user", history=True),
        *_user_parts(features),
        *(
            Part(name=f"crosses by {cross.group}", side="user", cross=k)
            for k, cross in enumerate(features.crosses)
        ),
        *(
            Part(name=f.name, side="item", entity="item", ids=(i,))
            for i, f in enumerate(features.ids_of("item"))
        ),
        *(
            Part(name=f.name, side="item", entity="item", bags=(i,))
            for i, f in enumerate(features.bags_of("item"))
        ),
        *(
            Part(name=name, side="item", entity="item", numbers=columns)
            for name, columns in _number_groups(features, "item").items()
        ),
    ]
    return [*found, Part(name="text", side="item", entity="item", text=True)] if text else found


def exchanged(rows: ListRows, parts: Sequence[Part], source: np.ndarray) -> EncodedRows:
    """Give rows whose values of some parts are those of the rows `source` [N]."""
    found = rows.encoded
    for part in parts:
        found = _exchanged(rows, found, part, source)
    return found


def _exchanged(rows: ListRows, found: EncodedRows, part: Part, source: np.ndarray) -> EncodedRows:
    if part.history:
        own = rows.encoded
        return replace(found, start=own.start[source], stop=own.stop[source], state_at=own.state_at[source])
    if part.cross is not None:
        day = rows.crosses_of
        # Another user's aggregates of what the row's own item has.
        numbers = day.crosses[part.cross].gather(day.user_row[source], day.item_row)
        tables = list(found.crosses)
        tables[part.cross] = one_cross_a_row(numbers)
        return replace(found, crosses=tuple(tables))
    if part.entity == "context":
        return replace(found, contexts=_mixed(found.contexts, rows.encoded.contexts, part, source))
    beyond = np.append(source, rows.size)
    if part.entity == "user":
        return replace(found, users=_mixed(found.users, rows.encoded.users, part, beyond))
    return replace(found, items=_mixed(found.items, rows.encoded.items, part, beyond))


def _mixed(found: Encoded, own: Encoded, part: Part, source: np.ndarray) -> Encoded:
    ids, numbers = found.ids.copy(), found.numbers.copy()
    columns = list(part.ids)
    ids[:, columns] = own.ids[source][:, columns]
    columns = list(part.numbers)
    numbers[:, columns] = own.numbers[source][:, columns]
    bags: list[Bag] = list(found.bags)
    for place in part.bags:
        bags[place] = own.bags[place].take(source)
    text = own.text[source] if part.text else found.text
    return Encoded(ids=ids, numbers=numbers, text=text, bags=tuple(bags))


def _user_parts(features: FeatureSet) -> list[Part]:
    """Cut what a user is, apart from history and crosses; live counters are columns of the context."""
    groups = _number_groups(features, "user")
    counted = tuple(c for name in ("counts", "rates") for c in groups.get(name, ()))
    own = tuple(c for name, columns in groups.items() if name not in ("counts", "rates") for c in columns)
    ids, bags = (tuple(range(len(of))) for of in (features.ids_of("user"), features.bags_of("user")))
    live = tuple(
        c
        for name, columns in _number_groups(features, "context").items()
        for c in columns
        if name.startswith("user_live_")
    )
    found = [
        Part(name="user attributes", side="user", entity="user", ids=ids, bags=bags, numbers=own),
        Part(name="user counts and rates", side="user", entity="user", numbers=counted),
        Part(name="live counters", side="user", entity="context", numbers=live),
    ]
    return [part for part in found if part.ids or part.bags or part.numbers]


def _number_groups(features: FeatureSet, entity: Entity) -> dict[str, tuple[int, ...]]:
    """Give the columns of an entity's numbers by the part that they belong to."""
    found: dict[str, tuple[int, ...]] = {}
    start = 0
    for feature in features.numbers_of(entity):
        columns = tuple(range(start, start + feature.width))
        start += feature.width
        name = _group(feature) if isinstance(feature, Number) else feature.name
        found[name] = (*found.get(name, ()), *columns)
    return found


def _group(feature: Number) -> str:
    """Name the part of a number: what is counted of the log stands together."""
    prefix, grouped, column = feature.column.rpartition("__")
    of = f" {prefix.replace('by_', 'by ', 1)}" if grouped else ""
    if feature.of:
        return f"rates{of}"
    counted = "_count_" in column or column.startswith("impressions_") or column == "hours_since_feedback"
    return f"counts{of}" if counted and feature.freshness == "nightly" else feature.name
