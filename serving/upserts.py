"""UpsertItems: checks sent items, encodes them merged with their present rows, journals them, shows them.

One server of a LOG at a time does so, once it has taken in what the others wrote (`upsert_turn`).
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType

from serving.catalogue.items import ItemPatch, ItemRow
from serving.catalogue.live import LiveCatalogue, Prepared
from serving.catalogue.overlay import ItemOverlay
from serving.instants import check_instant
from serving.journal import Journal
from serving.journal_rows import item_patch_rows
from serving.recommender import Recommender
from serving.request import Deadline, FieldError
from serving.request_checks import MAX_TEXT_BYTES, check_count, check_id, check_text, check_value
from serving.upsert_turn import UpsertTurn

FIELDS = ("title", "description", "category", "price", "available_from", "available_until", "attributes")
MAX_DESCRIPTION_BYTES = 16_384
_INSTANTS = ("available_from", "available_until")
# An item written later than this by another server's clock: that clock is wrong, or was.
_AHEAD_MS = 1_000


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
        turn: UpsertTurn,
        numbers: frozenset[str] = frozenset(),
    ) -> None:
        self._journal = journal
        self._overlay = overlay
        self._recommender = recommender
        self._turn = turn
        self._numbers = numbers

    def upsert(
        self,
        patches: Sequence[ItemPatch],
        mask: Sequence[str] = (),
        *,
        deadline: Deadline,
        unreadable: Mapping[int, FieldError] = MappingProxyType({}),
        validate_only: bool = False,
    ) -> tuple[UpsertResult, ...]:
        """Write items. With a mask, exactly its fields are written; those that were not sent are cleared.

        Args: deadline: half of what is left of it may go by until other servers have written theirs;
        unreadable: a patch's place -> why its message could not be read; it is rejected.
        Raises: FieldError for an unknown field in the mask; JournalError when nothing could be written;
        OverloadedError when other servers write for too long.
        """
        for name in mask:
            if name not in FIELDS:
                raise FieldError("update_mask", f"{name[:40]!r} is not a field; known: {', '.join(FIELDS)}")
        # Requests go on meanwhile: they read what was published last.
        turn = nullcontext() if validate_only else self._turn.taken(deadline)
        with turn, self._overlay.writing():
            live_catalogue = self._recommender.engine.live_catalogue
            rows, rejections = self._merged(live_catalogue, patches, mask, unreadable)
            prepared = live_catalogue.prepare(list(rows.values()))
            for at, patch in enumerate(patches):
                if patch.item_id in prepared.rejected:
                    reason = prepared.rejected[patch.item_id]
                    rejections.setdefault(at, f"it cannot be encoded ({reason}); send other values")
            accepted = [patch for at, patch in enumerate(patches) if at not in rejections]
            if accepted and not validate_only:
                self._write(live_catalogue, accepted, mask, prepared)
        return tuple(
            UpsertResult(
                item_id=patch.item_id,
                rejection=rejections.get(at, ""),
                in_bundle=at not in rejections and live_catalogue.in_bundle(patch.item_id),
            )
            for at, patch in enumerate(patches)
        )

    def _merged(
        self,
        live_catalogue: LiveCatalogue,
        patches: Sequence[ItemPatch],
        mask: Sequence[str],
        unreadable: Mapping[int, FieldError],
    ) -> tuple[dict[str, ItemRow], dict[int, str]]:
        """Merge patches with the present rows: item_id -> row, and a patch's place -> why it is rejected."""
        rows: dict[str, ItemRow] = {}
        rejections: dict[int, str] = {}
        for at, patch in enumerate(patches):
            try:
                if at in unreadable:
                    raise unreadable[at]
                check_patch(patch, self._numbers)
                before = rows.get(patch.item_id) or live_catalogue.item(patch.item_id)
                row = patch.masked(mask).applied(before or ItemRow(item_id=patch.item_id))
                _check_window(row)
            except FieldError as error:
                rejections[at] = str(error)
                continue
            rows[patch.item_id] = row
        return rows, rejections

    def _write(
        self,
        live_catalogue: LiveCatalogue,
        patches: Sequence[ItemPatch],
        mask: Sequence[str],
        prepared: Prepared,
    ) -> None:
        """Journal what was sent, then show it: what cannot be journalled is not shown."""
        timely, ahead = self._by_clock([patch.masked(mask) for patch in patches])
        written: list[ItemPatch] = []
        for group in (timely, ahead):
            if group:
                # A start and a night order patches by their instants: this one is the last of its items.
                after_ms = max(self._overlay.newest_ms(patch.item_id) for patch in group)
                # The journal's: a snapshot that ends in between has the patch, or the overlay applies it.
                at_ms = self._journal.append(item_patch_rows(group), after_ms=after_ms)
                written.extend(replace(patch, at_ms=at_ms) for patch in group)
        live_catalogue.publish(prepared)
        self._overlay.put(written, but=live_catalogue)

    def _by_clock(self, patches: Sequence[ItemPatch]) -> tuple[list[ItemPatch], list[ItemPatch]]:
        """Split off the items that a server wrote whose clock was ahead: the others' instants stay true."""
        limit_ms = self._journal.now_ms() + _AHEAD_MS
        ahead = {patch.item_id for patch in patches if self._overlay.newest_ms(patch.item_id) > limit_ms}
        return (
            [patch for patch in patches if patch.item_id not in ahead],
            [patch for patch in patches if patch.item_id in ahead],
        )


def check_patch(patch: ItemPatch, numbers: frozenset[str]) -> None:
    """Check the fields that were sent of one item.

    Raises: FieldError.
    """
    check_id("item_id", patch.item_id)
    for name, value in patch.fields.items():
        if value is None:
            continue
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
        elif name in _INSTANTS:
            check_instant(name, value)
        elif value < 0:
            raise FieldError(name, f"{value} is negative; send 0 or more")


def _check_window(row: ItemRow) -> None:
    if (
        row.available_from_ms is not None
        and row.available_until_ms is not None
        and row.available_until_ms < row.available_from_ms
    ):
        raise FieldError(
            "available_until", "it is before available_from; send a later instant, or clear one of them"
        )
