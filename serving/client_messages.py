"""Makes the client's messages from plain values; an error names the field, its value and what it takes."""

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from protos.recsys.v1 import ranking_pb2 as pb
from recsys.errors import RequestError
from serving.client_values import Feedback, ItemUpdate

_Message = TypeVar("_Message", bound=Message)
_KINDS: Mapping[int, str] = {
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_INT32: "a whole number of 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of 64 bits",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number of 64 bits, 0 or more",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_BOOL: "True or False",
}


def new_message(kind: type[_Message], fields: Mapping[str, Any]) -> _Message:
    """Make a message.

    Raises: RequestError for a field that it does not have, with those it has, or for a value of another type:
    protobuf's own errors name neither the field nor the value.
    """
    known = kind.DESCRIPTOR.fields_by_name
    given = dict(fields)
    for name, value in fields.items():
        if name not in known:
            raise RequestError(
                f"{kind.DESCRIPTOR.name} has no field {name!r}; its fields are: {', '.join(known)}"
            )
        if known[name].is_repeated and not isinstance(value, Mapping | None):
            # Text is a list of letters to protobuf.
            if isinstance(value, str | bytes) or not isinstance(value, Iterable):
                raise _wrong(f"{kind.DESCRIPTOR.name}.{name}", value, _expected(known[name]))
            given[name] = list(value)
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        for name, value in given.items():
            if not _fits(kind, name, value):
                raise _wrong(f"{kind.DESCRIPTOR.name}.{name}", value, _expected(known[name])) from error
        raise


def with_messages(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of a request, with messages for context values, filter, debug and pins.

    Raises: RequestError, as `new_message`.
    """
    given = dict(fields)
    if given.get("context") is not None:
        given["context"] = _values("context", given["context"])
    if isinstance(given.get("filter"), Mapping):
        given["filter"] = new_message(pb.Filter, given["filter"])
    if isinstance(given.get("debug"), Mapping):
        given["debug"] = new_message(pb.Debug, given["debug"])
    if "pins" in given and isinstance(given["pins"], Mapping):
        given["pins"] = [pb.Pin(position=position, item_id=item) for position, item in given["pins"].items()]
    return given


def event_message(event: Feedback) -> pb.FeedbackEvent:
    """Make the message of a piece of feedback. Raises: RequestError, as `new_message`."""
    fields = _fields("event", event, Feedback)
    return new_message(
        pb.FeedbackEvent, {**fields, "occurred_at": _timestamp("occurred_at", event.occurred_at)}
    )


def item_message(item: ItemUpdate) -> pb.Item:
    """Make the message of an item. Raises: RequestError, as `new_message`."""
    fields = _fields("item", item, ItemUpdate)
    converted = {
        "available_from": _timestamp("available_from", item.available_from),
        "available_until": _timestamp("available_until", item.available_until),
        "attributes": _values("attributes", item.attributes),
    }
    return new_message(pb.Item, {**fields, **converted})


def _values(field: str, given: Mapping[str, str | float]) -> dict[str, pb.ContextValue]:
    if not isinstance(given, Mapping):
        raise _wrong(field, given, "a dict of text to text or a number")
    return {name: _value(f"{field}[{name!r}]", value) for name, value in given.items()}


def _value(field: str, value: str | float) -> pb.ContextValue:
    try:
        return pb.ContextValue(text=value) if isinstance(value, str) else pb.ContextValue(number=value)
    except (TypeError, ValueError) as error:
        raise _wrong(field, value, "text or a number") from error


def _fits(kind: type[Message], name: str, value: object) -> bool:
    try:
        kind(**{name: value})
    except (TypeError, ValueError):
        return False
    return True


def _wrong(field: str, value: object, expected: str) -> RequestError:
    return RequestError(f"{field} is {repr(value)[:80]} ({type(value).__name__}); give {expected}")


def _expected(field: Any) -> str:
    """Say what a field takes, given its descriptor (protobuf has two classes of them)."""
    message = field.message_type
    if message is None:
        one = _KINDS[field.cpp_type]
    elif message.GetOptions().map_entry:
        return f"a dict of text to {_expected(message.fields_by_name['value'])}"
    else:
        one = f"{message.name} ({', '.join(message.fields_by_name)})"
    return f"a list of {one}" if field.is_repeated else one


def _fields(what: str, given: object, kind: type[Feedback | ItemUpdate]) -> dict[str, Any]:
    if not isinstance(given, kind):
        raise _wrong(what, given, f"values of {kind.__name__}, from serving.client_values")
    return {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}


def _timestamp(field: str, instant: datetime | None) -> Timestamp | None:
    if instant is None:
        return None
    if not isinstance(instant, datetime):
        raise _wrong(field, instant, "a datetime")
    stamp = Timestamp()
    stamp.FromDatetime(instant)
    return stamp
