"""The key layout in Redis. Every key can be computed, so nothing is ever searched for with SCAN or KEYS.

{NS}:current        the live version
{NS}:ready          hash: version -> "GENERATION record"; whole and verified
{NS}:written        hash: generation -> record; whatever may have left keys
{NS}:lease:GEN      held while a publisher lives, then expires
{NS}:delta_before   events received before this instant (ms) are no longer given
NS:{TAG}:GEN:BUCKET  hash: user_id -> packed value, and SEAL -> generation; a bucket of the base
NS:{TAG}:delta:USER hash: feedback_id -> [item_id, kind, value, received_at_ms]; a user's delta

The part in braces decides the slot. The pointers share one slot, so scripts change them atomically. A user's
base and delta share one slot, so a read asks one node. Each publish writes under a new generation: keys
that a killed publisher left are never mixed with those of the next one. A bucket without its seal was never
finished, or was collected or evicted: reading it is an error, never "unknown user".
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import ceil
from zlib import crc32

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from features.store import Event
from features.store.codec import Codec

NUM_TAGS = 256
"""Hash tags, one for each stripe of the slots: nodes with equal ranges of slots hold equally many users."""
USERS_PER_BUCKET = 16
"""Bytes a user beyond id and value: 13 in a hash of 16 kept as a listpack (`hash-max-listpack-value 8192`),
61 in a hash of 16 kept as a hash table, 93 in a key of its own (50,000 users of the simulated shop)."""
SEAL = b"\xff"
"""The field that a bucket gets last; no user id can be this, because it is not UTF-8."""


@cache
def tags() -> tuple[int, ...]:
    """Find, for each stripe of the 16,384 slots, the smallest number whose slot lies in it."""
    found: dict[int, int] = {}
    number = 0
    while len(found) < NUM_TAGS:
        found.setdefault(key_slot(b"%d" % number) * NUM_TAGS // REDIS_CLUSTER_HASH_SLOTS, number)
        number += 1
    return tuple(found[stripe] for stripe in range(NUM_TAGS))


def place(user_id: str) -> tuple[int, int]:
    """Give a user's hash tag, and the rest of the hash, which chooses the bucket beside it."""
    rest, stripe = divmod(crc32(user_id.encode()), NUM_TAGS)
    return tags()[stripe], rest


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one namespace."""

    namespace: str

    @property
    def current(self) -> str:
        """The live version."""
        return f"{{{self.namespace}}}:current"

    @property
    def ready(self) -> str:
        """The whole versions."""
        return f"{{{self.namespace}}}:ready"

    @property
    def written(self) -> str:
        """The generations that may have keys."""
        return f"{{{self.namespace}}}:written"

    @property
    def delta_before(self) -> str:
        """The instant before which events are in every base."""
        return f"{{{self.namespace}}}:delta_before"

    def lease(self, generation: str) -> str:
        """Say that a publisher lives."""
        return f"{{{self.namespace}}}:lease:{generation}"

    def delta(self, user_id: str) -> str:
        """One user's events."""
        return f"{self.namespace}:{{{place(user_id)[0]}}}:delta:{user_id}"

    def bucket(self, base: "Base", user_id: str) -> str:
        """The bucket that one user's packed value lies in."""
        tag, rest = place(user_id)
        return f"{self.namespace}:{{{tag}}}:{base.generation}:{rest % base.buckets}"

    def buckets(self, base: "Base") -> Iterator[str]:
        """Every bucket of a generation."""
        for tag in tags():
            for sub in range(base.buckets):
                yield f"{self.namespace}:{{{tag}}}:{base.generation}:{sub}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """One generation of a version: what is needed to find and to unpack its values."""

    version: str
    generation: str
    buckets: int
    """Buckets of each hash tag."""
    codec: Codec
    users: int = 0
    meta: dict[str, str]

    def record(self) -> bytes:
        """Give the entry of {NS}:ready, led by the generation so that a script can compare it."""
        values = {
            "version": self.version,
            "buckets": self.buckets,
            "dictionary": b64encode(self.codec.dictionary).decode(),
            "users": self.users,
            "meta": self.meta,
        }
        return f"{self.generation} {json.dumps(values, separators=(',', ':'))}".encode()


def read_base(record: bytes) -> Base:
    """Read what `Base.record` wrote."""
    generation, _, text = record.decode().partition(" ")
    values = json.loads(text)
    return Base(
        version=values["version"],
        generation=generation,
        buckets=values["buckets"],
        codec=Codec(b64decode(values["dictionary"])),
        users=values["users"],
        meta=values["meta"],
    )


def buckets_for(users: int) -> int:
    """Choose how many buckets each hash tag gets."""
    return max(1, ceil(users / USERS_PER_BUCKET / NUM_TAGS))


def pack_event(event: Event) -> bytes:
    """Give the delta's entry of an event: small enough (64 bytes) that the hash stays a listpack."""
    values = [event.item_id, event.kind, event.value, event.received_at_ms]
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()


def unpack_event(user_id: str, feedback_id: bytes, packed: bytes) -> Event:
    """Read what `pack_event` wrote."""
    item_id, kind, value, received_at_ms = json.loads(packed)
    return Event(
        feedback_id=feedback_id.decode(),
        user_id=user_id,
        item_id=item_id,
        kind=kind,
        value=value,
        received_at_ms=received_at_ms,
    )
