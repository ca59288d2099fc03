"""Items that change before the next bundle: checked, merged with what is known, journalled, shown at once."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from serving.catalogue import ItemRow
from serving.checks import MAX_TEXT_BYTES, check_count, check_id, check_text, check_value
from serving.clock import Clock
from serving.journal import Journal
from serving.overlay import Overlay
from serving.recommender import Recommender
from serving.records import item_rows
from serving.request import FieldError

FIELDS = ("title", "description", "category", "price", "available_from", "available_until", "attributes")
MAX_DESCRIPTION_BYTES = 16_384
_COLUMNS = {"available_from": "available_from_ms", "available_until": "available_until_ms"}
FieldValue = str | int | Mapping[str, str | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPatch:
    """The fields of one item that were sent; instants in milliseconds."""

    item_id: str
    fields: Mapping[str, FieldValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upserted:
    """What became of one item."""

    item_id: str
    rejection: str = ""
    in_bundle: bool = False


class UpsertDesk:
    """Writes items; safe to call from many threads.

    Args: numbers: attributes that the config declares to be numbers.
    """

    def __init__(
        self,
        journal: Journal,
        overlay: Overlay,
        recommender: Recommender,
        clock: Clock,
        numbers: frozenset[str] = frozenset(),
    ) -> None:
        self._journal = journal
        self._overlay = overlay
        self._recommender = recommender
        self._clock = clock
        self._numbers = numbers
        self._lock = threading.Lock()

    def upsert(
        self, patches: Sequence[ItemPatch], mask: Sequence[str] = (), *, validate_only: bool = False
    ) -> tuple[Upserted, ...]:
        """Write items; with a mask its fields are written, or cleared where they were not sent.

        Raises: FieldError for an unknown field in the mask; JournalError when nothing could be written.
        """
        for name in mask:
            if name not in FIELDS:
                raise FieldError(
                    "update_mask", f"no field is called {name[:40]!r}; known: {', '.join(FIELDS)}"
                )
        with self._lock:
            shelf = self._recommender.engine.shelf
            rows: dict[str, ItemRow] = {}
            results: list[Upserted] = []
            now_ms = self._clock.now_ms()
            for patch in patches:
                try:
                    check_patch(patch, self._numbers)
                    known = rows.get(patch.item_id) or shelf.item(patch.item_id)
                    rows[patch.item_id] = _merged(
                        known or ItemRow(item_id=patch.item_id), patch, mask, now_ms
                    )
                except FieldError as error:
                    results.append(Upserted(item_id=patch.item_id, rejection=str(error)))
                    continue
                results.append(Upserted(item_id=patch.item_id, in_bundle=shelf.in_bundle(patch.item_id)))
            if rows and not validate_only:
                self._journal.append(item_rows(list(rows.values())))
                self._overlay.put(rows.values())
                shelf.now()  # encode them now: no request shall wait for it
        return tuple(results)


def check_patch(patch: ItemPatch, numbers: frozenset[str]) -> None:
    """Check what was sent of one item.

    Raises: FieldError.
    """
    check_id("item_id", patch.item_id)
    for name, value in patch.fields.items():
        if isinstance(value, str):
            check_text(name, value, MAX_DESCRIPTION_BYTES if name == "description" else MAX_TEXT_BYTES)
        elif isinstance(value, Mapping):
            check_count(name, len(value))
            for key, entry in value.items():
                check_value(name, key, entry)
                if key in numbers and isinstance(entry, str):
                    raise FieldError(
                        f"{name}[{key!r}]",
                        f"{entry[:40]!r} is text; the config declares it a number: send one",
                    )
        elif value < 0:
            raise FieldError(name, f"{value} is negative; send 0 or more")


def _merged(known: ItemRow, patch: ItemPatch, mask: Sequence[str], at_ms: int) -> ItemRow:
    row = replace(known, at_ms=at_ms)
    for name in mask or patch.fields:
        row = _with_field(row, name, patch.fields.get(name), whole=bool(mask))
    if (
        row.available_from_ms is not None
        and row.available_until_ms is not None
        and row.available_until_ms < row.available_from_ms
    ):
        raise FieldError(
            "available_until", "it lies before available_from; send a later instant, or clear one"
        )
    return row


def _with_field(row: ItemRow, name: str, value: FieldValue | None, *, whole: bool) -> ItemRow:
    if name == "attributes":
        sent = value if isinstance(value, Mapping) else {}
        return replace(row, attributes=dict(sent) if whole else {**row.attributes, **sent})
    changes: dict[str, object] = {_COLUMNS.get(name, name): value}
    return replace(row, **changes)  # type: ignore[arg-type]
