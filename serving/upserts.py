"""UpsertItems: checks sent items, merges them with their present rows, journals them, shows them at once."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from serving.catalogue import ItemRow
from serving.clock import Clock
from serving.journal import Journal
from serving.journal_rows import item_rows
from serving.live_catalogue import ItemOverlay
from serving.recommender import Recommender
from serving.request import FieldError
from serving.request_checks import MAX_TEXT_BYTES, check_count, check_id, check_text, check_value

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
class UpsertResult:
    """The result of one item: written, or rejected with a reason."""

    item_id: str
    rejection: str = ""
    in_bundle: bool = False


class ItemUpserter:
    """Writes upserted items; safe to call from many threads.

    Args: numbers: names of the attributes that the config declares as numbers.
    """

    def __init__(
        self,
        journal: Journal,
        overlay: ItemOverlay,
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
    ) -> tuple[UpsertResult, ...]:
        """Write items. With a mask, exactly its fields are written; those that were not sent are cleared.

        Raises: FieldError for an unknown field in the mask; JournalError when nothing could be written.
        """
        for name in mask:
            if name not in FIELDS:
                raise FieldError("update_mask", f"{name[:40]!r} is not a field; known: {', '.join(FIELDS)}")
        with self._lock:
            live_catalogue = self._recommender.engine.live_catalogue
            rows: dict[str, ItemRow] = {}
            results: list[UpsertResult] = []
            now_ms = self._clock.now_ms()
            for patch in patches:
                try:
                    check_patch(patch, self._numbers)
                    before = rows.get(patch.item_id) or live_catalogue.item(patch.item_id)
                    rows[patch.item_id] = _merged(
                        before or ItemRow(item_id=patch.item_id), patch, mask, now_ms
                    )
                except FieldError as error:
                    results.append(UpsertResult(item_id=patch.item_id, rejection=str(error)))
                    continue
                results.append(
                    UpsertResult(item_id=patch.item_id, in_bundle=live_catalogue.in_bundle(patch.item_id))
                )
            if rows and not validate_only:
                self._journal.append(item_rows(list(rows.values())))
                self._overlay.put(rows.values())
                live_catalogue.current()  # encodes the items here, so that no request has to
        return tuple(results)


def check_patch(patch: ItemPatch, numbers: frozenset[str]) -> None:
    """Check the fields that were sent of one item.

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


def _merged(before: ItemRow, patch: ItemPatch, mask: Sequence[str], at_ms: int) -> ItemRow:
    row = replace(before, at_ms=at_ms)
    for name in mask or patch.fields:
        row = _with_field(row, name, patch.fields.get(name), whole=bool(mask))
    if (
        row.available_from_ms is not None
        and row.available_until_ms is not None
        and row.available_until_ms < row.available_from_ms
    ):
        raise FieldError(
            "available_until", "it is before available_from; send a later instant, or clear one of them"
        )
    return row


def _with_field(row: ItemRow, name: str, value: FieldValue | None, *, whole: bool) -> ItemRow:
    if name == "attributes":
        sent = value if isinstance(value, Mapping) else {}
        return replace(row, attributes=dict(sent) if whole else {**row.attributes, **sent})
    changes: dict[str, object] = {_COLUMNS.get(name, name): value}
    return replace(row, **changes)  # type: ignore[arg-type]
