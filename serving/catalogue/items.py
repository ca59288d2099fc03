"""One item's row, and a patch of it: the fields that an upsert sends."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

FieldValue = str | int | Mapping[str, str | float]
_COLUMNS = {"available_from": "available_from_ms", "available_until": "available_until_ms"}
# Patches of one item within this span are one patch: no bundle's snapshot ends inside of it.
_FOLD_MS = 15 * 60 * 1000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPatch:
    """The fields of one item that were sent; instants in milliseconds."""

    item_id: str
    fields: Mapping[str, FieldValue | None]
    """None clears a field."""
    whole_attributes: bool = False
    """Whether attributes that were not sent are cleared."""
    at_ms: int = 0
    """When it was upserted."""

    @classmethod
    def of_row(cls, row: ItemRow, at_ms: int = 0) -> "ItemPatch":
        """Return the patch that makes any item this row."""
        fields: dict[str, FieldValue | None] = {
            "title": row.title,
            "description": row.description,
            "category": row.category,
            "price": row.price,
            "available_from": row.available_from_ms,
            "available_until": row.available_until_ms,
            "attributes": row.attributes,
        }
        return cls(item_id=row.item_id, fields=fields, whole_attributes=True, at_ms=at_ms)

    def masked(self, mask: Sequence[str]) -> "ItemPatch":
        """Return the patch that writes exactly these fields; all that were sent, where none is named."""
        if not mask:
            return self
        fields = {name: self.fields.get(name) for name in mask}
        return replace(self, fields=fields, whole_attributes="attributes" in mask)

    def applied(self, row: ItemRow) -> ItemRow:
        """Return an item's row with the patch in it."""
        changes: dict[str, object] = {
            _COLUMNS.get(name, name): value for name, value in self.fields.items() if name != "attributes"
        }
        if "attributes" in self.fields:
            changes["attributes"] = self._attributes(row.attributes)
        return replace(row, **changes)  # type: ignore[arg-type]

    def followed_by(self, later: "ItemPatch") -> "ItemPatch":
        """Return one patch that does what both do, one after the other."""
        fields = {**self.fields, **later.fields}
        if "attributes" in later.fields and not later.whole_attributes:
            mine = self.fields.get("attributes")
            fields["attributes"] = later._attributes(mine if isinstance(mine, Mapping) else {})
        return replace(later, fields=fields, whole_attributes=self.whole_attributes or later.whole_attributes)

    def _attributes(self, before: Mapping[str, str | float]) -> Mapping[str, str | float]:
        sent = self.fields["attributes"]
        values = dict(sent) if isinstance(sent, Mapping) else {}
        return values if self.whole_attributes else {**before, **values}


def patched(row: ItemRow, patches: Iterable[ItemPatch]) -> ItemRow:
    """Apply patches, oldest first."""
    for patch in patches:
        row = patch.applied(row)
    return row


def with_patch(patches: tuple[ItemPatch, ...], added: ItemPatch) -> tuple[ItemPatch, ...]:
    """Add a patch of the same item at its instant; those of one quarter of an hour become one.

    Of patches of one instant the one added later follows. Adding a patch again changes nothing.
    """
    quarter = added.at_ms // _FOLD_MS
    at = len(patches)
    while at and patches[at - 1].at_ms // _FOLD_MS > quarter:
        at -= 1
    if not at or patches[at - 1].at_ms // _FOLD_MS < quarter:
        return (*patches[:at], added, *patches[at:])
    known = patches[at - 1]
    one = known.followed_by(added) if known.at_ms <= added.at_ms else added.followed_by(known)
    return (*patches[: at - 1], one, *patches[at:])
