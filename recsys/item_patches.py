"""What a journal row writes of an item: the fields that an upsert sent, or all of a row of older servers."""

from collections.abc import Mapping
from typing import Final

from recsys.errors import DataError
from recsys.schema import ATTRIBUTE_PREFIX

TABLE: Final = "item_patches"
TABLES: Final = ("items", TABLE)
ATTRIBUTES: Final = "attributes"
"""As a field: attributes that are not sent are cleared."""
FIELDS: Final[Mapping[str, type]] = {
    "title": str,
    "description": str,
    "category": str,
    "price": int,
    "available_from": int,
    "available_until": int,
}


def sent_fields(table: str, values: Mapping[str, object]) -> list[str]:
    """List the fields that a journal row writes, null or not.

    Raises: DataError when it is no row of an item: without id or list of fields, or with a value of another
    type.
    """
    if not isinstance(values.get("item_id"), str):
        raise DataError(f"an upsert without item_id ({values.get('item_id')!r}); it changes nothing")
    sent = [*FIELDS, *values, ATTRIBUTES] if table != TABLE else values.get("fields")
    if not isinstance(sent, list) or not all(isinstance(name, str) for name in sent):
        raise DataError(f"an upsert of {values['item_id']!r} with fields {sent!r}; it changes nothing")
    fields = [
        name
        for name in dict.fromkeys(sent)
        if name in FIELDS or name == ATTRIBUTES or name.startswith(ATTRIBUTE_PREFIX)
    ]
    for name in fields:
        value = values.get(name)
        kind = FIELDS.get(name, str | int | float | list)
        if value is not None and not isinstance(value, kind):
            raise DataError(f"an upsert of {values['item_id']!r} with {name} = {value!r}; it changes nothing")
    return fields
