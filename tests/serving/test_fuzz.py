"""Fuzz over a real port: every request message of both services, and bytes, are answered by a status of ours.

A short one runs with the suite; the long one is `pytest -m slow tests/serving/test_fuzz.py`.
"""

import math
import random
import struct
from collections import Counter
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from protos.recsys.v1 import admin_pb2, ranking_pb2

PATIENCE_S = 120.0
SERVICES = {
    "ranking": ranking_pb2.DESCRIPTOR.services_by_name["RankingService"],
    "admin": admin_pb2.DESCRIPTOR.services_by_name["AdminService"],
}
METHODS = [(port, method.name) for port, service in SERVICES.items() for method in service.methods]
NUMBERS = (0.0, -0.0, 1.0, -1.0, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan, 1e6, 1e-12)
TEXTS = (
    *("", "u1", "i1", "i39", "click", "rugs", "v1", "page_token", "available_until", "title", "rating"),
    *(
        "a" * 257,
        "ä" * 2_000,
        "\x00",
        "\u202e",
        "../../etc/passwd",
        "'; DROP TABLE events; --",
        "%s%n{}",
        "\ud7ff",
    ),
)
GOOD_TEXTS = ("u1", "i1", "i2", "i39", "click")
TASKS = ("click", "purchase", "rating")
NEEDED = ("user_id", "item_ids", "item_id", "feedback_id", "kind", "events", "items")
# What a client may be told; never INTERNAL and UNKNOWN, nor that a server is gone.
GOOD = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # a message beyond the size limit
}


class Messages:
    """Makes messages: of good values, of which most are answered, or of those at the edges and beyond."""

    def __init__(self, rng: random.Random, *, wild: bool) -> None:
        self.rng, self.wild = rng, wild

    def make(self, kind: Descriptor, depth: int = 0) -> Message:
        """Fill some fields of a message."""
        message = GetMessageClass(kind)()
        for field in kind.fields:
            needed = not self.wild and field.name in NEEDED
            if needed or self.rng.random() < (0.4 if self.wild or depth else 0.2):
                self._fill(message, field, depth)
        return message

    def _fill(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        nested = field.message_type
        if nested is not None and nested.GetOptions().map_entry:
            self._fill_map(getattr(message, field.name), nested.fields_by_name["value"])
        elif field.is_repeated:
            into = getattr(message, field.name)
            for _ in range(self.rng.choice((0, 1, 2, 5) if self.wild else (1, 3))):
                into.append(self._value(field) if nested is None else self.make(nested, depth + 1))
        elif nested is None:
            setattr(message, field.name, self._value(field))
        else:
            getattr(message, field.name).CopyFrom(self.make(nested, depth + 1))

    def _fill_map(self, entries: Any, value: FieldDescriptor) -> None:
        for _ in range(self.rng.choice((0, 1, 3))):
            key = self.rng.choice(TEXTS if self.wild else TASKS)
            if value.message_type is None:
                entries[key] = self._value(value)
            else:
                entries[key].CopyFrom(self.make(value.message_type, depth=1))

    def _value(self, field: FieldDescriptor) -> Any:
        kind, rng = field.cpp_type, self.rng
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return rng.choice(TEXTS if self.wild else GOOD_TEXTS)
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return rng.choice(NUMBERS if self.wild else (0.0, 1.0, 2.5))
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        if not self.wild:
            return rng.choice((1, 2, 10))
        bits = 32 if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
        unsigned = kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
        low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return rng.choice((low, high, 0, 1, 2, 10, rng.randrange(low, high)))


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Change bytes of a message: flipped, cut, repeated, a length that lies, or plain noise."""
    how = rng.randrange(5)
    if how == 0 or not data:
        return rng.randbytes(rng.choice((1, 2, 10, 300)))
    at = rng.randrange(len(data))
    if how == 1:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if how == 2:
        return data[:at]
    if how == 3:
        return data + data[at:] * rng.choice((1, 3))
    return data[:at] + struct.pack("<Q", rng.getrandbits(64))[: rng.randrange(1, 9)] + data[at:]


def fuzz(one, rounds: int, seed: int) -> Counter[str]:
    """Send each method so many messages and as many damaged ones; count the statuses."""
    rng, found = random.Random(seed), Counter()
    channels = {"ranking": one.client.channel, "admin": one.admin.channel}
    for _ in range(rounds):
        for port, name in METHODS:
            method = SERVICES[port].methods_by_name[name]
            messages = Messages(rng, wild=rng.random() < 0.5)
            data = messages.make(method.input_type).SerializeToString()
            reply = GetMessageClass(method.output_type).FromString
            call = channels[port].unary_unary(f"/{SERVICES[port].full_name}/{name}", None, reply)
            for sent in (data, damaged(data, rng)):
                future = call.future(sent, timeout=PATIENCE_S)
                code = future.code()
                assert code in GOOD, (name, sent, code, future.details())
                found[f"{name}/{code.name}"] += 1
                if name in ("Recommend", "Rank") and code is grpc.StatusCode.OK:
                    items = future.result().results
                    assert all(math.isfinite(i.score) and 0 < i.propensity <= 1 for i in items), sent
    return found


def check(one, found: Counter[str]) -> None:
    answered = {name for name in found if name.endswith("/OK")}
    assert answered >= {f"{name}/OK" for _, name in METHODS if name not in ("Activate", "Rollback")}, found
    assert len({name for name in found if name.endswith("/INVALID_ARGUMENT")}) == len(METHODS), found
    assert len(one.client.recommend("u1").items) == 10
    assert not [call for call in one.admin.status().calls if call.endswith("/INTERNAL")]


@pytest.fixture
def one(start):
    return start(policy={"epsilon": 0.5})


def test_no_message_and_no_bytes_are_an_internal_error(one) -> None:
    check(one, fuzz(one, rounds=40, seed=11))


@pytest.mark.slow
def test_no_message_of_a_hundred_thousand_is_an_internal_error(one) -> None:
    check(one, fuzz(one, rounds=6_250, seed=12))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["context", "head_weights"])
def test_a_number_that_is_none_is_named(one, field, value) -> None:
    sent = {field: {"click": value}}
    with pytest.raises(Exception, match=rf"INVALID_ARGUMENT: {field}.*click"):
        one.client.recommend("u1", **sent)
