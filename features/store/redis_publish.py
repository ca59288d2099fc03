"""Publish a base to Redis: estimate, write, seal, read back, and only then make the version visible.

A publisher holds a lease while it lives. A publisher that dies leaves a generation without lease that
belongs to no version: `collect` removes it. The scripts that collecting needs only delete: it works when
memory is full.
"""

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, cast
from uuid import uuid4

from redis.exceptions import RedisClusterException, RedisError

from features.store.codec import Codec
from features.store.redis_keys import SEAL, Base, Keys, buckets_for, read_base
from features.store.redis_nodes import Nodes, by_node
from recsys.config import StoreConfig
from recsys.errors import StoreError

LEASE_S = 60.0
CHUNK = 1_000
"""Users, or buckets, sent at once."""
SAMPLE = 1_000
"""Values that the dictionary and the estimate are made from, and about as many that are read back."""
USER_OVERHEAD = 64
"""Bytes a user beside id and packed value; measured: 13 as a listpack, 61 as a hash table (the default)."""
Pairs = Iterable[tuple[str, bytes]]

_COMMIT = """
if redis.call('EXISTS', KEYS[2]) == 0 then return 'lost' end
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 'taken' end
redis.call('DEL', KEYS[2])
return 'done'
"""
_ABANDON = """
local record = redis.call('HGET', KEYS[1], ARGV[1])
if record and string.sub(record, 1, #ARGV[2] + 1) == ARGV[2] .. ' ' then return 0 end
redis.call('DEL', KEYS[2])
return 1
"""
_SHARE = """
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 1 then return 1 end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
return 1
"""
_RETIRE = """
local keep = {[redis.call('GET', KEYS[3]) or ''] = true}
for i = 2, #ARGV do keep[ARGV[i]] = true end
local records, held, removed = redis.call('HGETALL', KEYS[1]), false, {}
for i = 1, #records, 2 do
  if string.sub(records[i + 1], 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then
    if keep[records[i]] then held = true else table.insert(removed, records[i]) end
  end
end
for _, version in ipairs(removed) do redis.call('HDEL', KEYS[1], version) end
if #removed == 0 and redis.call('EXISTS', KEYS[2]) == 1 then held = true end
return {held and 'held' or 'free', removed}
"""


class Publisher:
    """Writes and removes generations. Its methods let redis-py's errors through."""

    def __init__(self, nodes: Nodes, keys: Keys, where: str, config: StoreConfig) -> None:
        self._nodes, self._keys, self._where = nodes, keys, where
        self._headroom = config.memory_headroom
        self._lease_s = LEASE_S
        self._renewed_at = 0.0

    def publish(self, version: str, values: Pairs, meta: Mapping[str, str], expected: int) -> int:
        """Write a version; give how many users it has.

        Raises: StoreError when it would not fit, names a user twice, or does not read back.
        """
        pairs = iter(values)
        head = list(islice(pairs, SAMPLE))
        base = Base(
            version=version,
            generation=uuid4().hex[:12],
            buckets=buckets_for(max(expected, len(head))),
            codec=Codec.fit([value for _, value in head]),
            meta=dict(meta),
        )
        self._check_room(base, head, max(expected, len(head)))
        self._begin(base)
        try:
            count, sample = self._write(base, chain(head, pairs), max(1, expected // SAMPLE))
            self._seal(base, count)
            self._read_back(base, sample)
            return self._commit(replace(base, users=count))
        except BaseException:
            # What cannot be removed now is collected later.
            with contextlib.suppress(RedisError, RedisClusterException):
                self._abandon(base)
            raise

    def share(self, version: str, other: str) -> bool:
        """Let a version read another's generation, which stays as long as one of them does."""
        client = cast(Any, self._nodes.of(self._keys.ready))
        record = client.hget(self._keys.ready, other)
        if record is None:
            return bool(client.hexists(self._keys.ready, version))
        own = replace(read_base(record), version=version).record()
        return bool(client.eval(_SHARE, 1, self._keys.ready, other, version, record, own))

    def collect(self, keep: set[str], delta_before_ms: int) -> list[str]:
        """Remove versions that are not kept and generations whose publisher died; give the versions."""
        client = cast(Any, self._nodes.of(self._keys.ready))
        removed = []
        for name, record in client.hgetall(self._keys.written).items():
            base = read_base(record)
            keys = (self._keys.ready, self._keys.lease(base.generation), self._keys.current)
            state, versions = client.eval(_RETIRE, 3, *keys, name, *keep)
            removed += [version.decode() for version in versions]
            if state == b"free":
                self._remove(base)
        if delta_before_ms > int(client.get(self._keys.delta_before) or 0):
            client.set(self._keys.delta_before, delta_before_ms)
        return sorted(removed)

    def _check_room(self, base: Base, head: Sequence[tuple[str, bytes]], users: int) -> None:
        """Refuse what would not fit, before anything is written."""
        if not head:
            return
        mean = sum(len(user.encode()) + len(base.codec.pack(value)) for user, value in head) / len(head)
        nodes = [cast(Any, client).info("memory") for client in self._nodes.primaries()]
        need = self._headroom * users * (mean + USER_OVERHEAD) / len(nodes)
        for memory in nodes:
            maximum = int(memory.get("maxmemory", 0))
            if maximum and str(memory.get("maxmemory_policy", "")).startswith("allkeys"):
                raise StoreError(
                    f"{self._where} has maxmemory-policy {memory['maxmemory_policy']}: it would throw "
                    "published users away; set it to noeviction or volatile-ttl"
                )
            limit = maximum or int(memory.get("total_system_memory", 0))
            free = limit - int(memory["used_memory"])
            if limit and need > free:
                raise StoreError(
                    f"version {base.version} does not fit: {users:,} users of {mean:.0f} packed bytes and "
                    f"{USER_OVERHEAD} around them, times {self._headroom:g}, need {need / 1e6:,.1f} MB each; "
                    f"{self._where} has {free / 1e6:,.1f} MB free of {limit / 1e6:,.1f} MB "
                    f"({'maxmemory' if maximum else 'its memory'}); raise maxmemory, lower [store] keep, or "
                    "shorten [features] history_length"
                )

    def _begin(self, base: Base) -> None:
        """Note the generation before its first key is written, so that every key can be found again."""
        pipeline = cast(Any, self._nodes.of(self._keys.ready)).pipeline(transaction=True)
        pipeline.set(self._keys.lease(base.generation), "1", px=int(1000 * self._lease_s))
        pipeline.hset(self._keys.written, base.generation, base.record())
        pipeline.execute()
        self._renewed_at = time.monotonic()

    def _renew(self, base: Base) -> None:
        if time.monotonic() - self._renewed_at < self._lease_s / 3:
            return
        lease = self._keys.lease(base.generation)
        if not cast(Any, self._nodes.of(lease)).pexpire(lease, int(1000 * self._lease_s)):
            raise _lost(base, self._where)
        self._renewed_at = time.monotonic()

    def _write(self, base: Base, pairs: Pairs, every: int) -> tuple[int, dict[str, bytes]]:
        """Write all values; give their count and every so many of them to be read back."""
        count = 0
        sample: dict[str, bytes] = {}
        pairs = iter(pairs)
        while chunk := list(islice(pairs, CHUNK)):
            sample |= dict(chunk[:: min(every, CHUNK)]) if len(sample) < 2 * SAMPLE else {}
            buckets: dict[str, list[str | bytes]] = {}
            for user, value in chunk:
                buckets.setdefault(self._keys.bucket(base, user), []).extend((user, base.codec.pack(value)))
            new = sum(self._hset(buckets))
            if new != len(chunk):
                raise StoreError(
                    f"version {base.version}: {len(chunk) - new} of the users around {chunk[0][0]!r} are "
                    "given twice; give each user one value"
                )
            count += new
            self._renew(base)
        return count, sample

    def _hset(self, buckets: Mapping[str, Sequence[str | bytes]]) -> list[int]:
        names, replies = list(buckets), []
        for client, places in by_node(self._nodes, names):
            pipeline = cast(Any, client).pipeline(transaction=False)
            for place in places:
                pipeline.hset(names[place], items=buckets[names[place]])
            replies += pipeline.execute()
        return replies

    def _seal(self, base: Base, count: int) -> None:
        """Give every bucket, empty ones too, its last field, and count what they hold.

        Raises: StoreError when a bucket was sealed before, or when fields are missing.
        """
        held = 0
        names = self._keys.buckets(base)
        while chunk := list(islice(names, CHUNK)):
            for client, places in by_node(self._nodes, chunk):
                pipeline = cast(Any, client).pipeline(transaction=False)
                for place in places:
                    pipeline.hset(chunk[place], SEAL, base.generation)
                    pipeline.hlen(chunk[place])
                held += sum(length - 1 for length in pipeline.execute()[1::2])
            self._renew(base)
        if held != count:
            raise StoreError(
                f"version {base.version}: {self._where} holds {held:,} of the {count:,} users written; "
                "something else deletes its keys; look for it and publish again"
            )

    def _read_back(self, base: Base, sample: Mapping[str, bytes]) -> None:
        users = list(sample)
        names = [self._keys.bucket(base, user) for user in users]
        for client, places in by_node(self._nodes, names):
            pipeline = cast(Any, client).pipeline(transaction=False)
            for place in places:
                pipeline.hget(names[place], users[place])
            for place, packed in zip(places, pipeline.execute(), strict=True):
                if packed is None or base.codec.unpack(packed) != sample[users[place]]:
                    raise StoreError(
                        f"version {base.version}: user {users[place]!r} does not read back from "
                        f"{self._where} as written; check the server and publish again"
                    )

    def _commit(self, base: Base) -> int:
        """Make the version readable, unless another publisher was first: then theirs counts."""
        client = cast(Any, self._nodes.of(self._keys.ready))
        keys = (self._keys.ready, self._keys.lease(base.generation))
        outcome = client.eval(_COMMIT, 2, *keys, base.version, base.record())
        if outcome == b"lost":
            raise _lost(base, self._where)
        if outcome == b"taken":
            self._abandon(base)
            return read_base(client.hget(self._keys.ready, base.version)).users
        return base.users

    def _abandon(self, base: Base) -> None:
        """Remove a generation, unless it became a version after all (its reply was lost on the way)."""
        client = cast(Any, self._nodes.of(self._keys.ready))
        keys = (self._keys.ready, self._keys.lease(base.generation))
        if client.eval(_ABANDON, 2, *keys, base.version, base.generation):
            self._remove(base)

    def _remove(self, base: Base) -> None:
        """Unlink every bucket, so many at a time, and forget the generation."""
        names = self._keys.buckets(base)
        while chunk := list(islice(names, CHUNK)):
            for client, places in by_node(self._nodes, chunk):
                pipeline = cast(Any, client).pipeline(transaction=False)
                for place in places:
                    pipeline.unlink(chunk[place])
                pipeline.execute()
        cast(Any, self._nodes.of(self._keys.written)).hdel(self._keys.written, base.generation)


def _lost(base: Base, where: str) -> StoreError:
    return StoreError(
        f"version {base.version}: this publisher paused for so long that its lease in {where} ran out; "
        "publish again"
    )
