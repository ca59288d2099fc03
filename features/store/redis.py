"""Redis or Valkey, one server or a cluster: for fleets. `redis_keys` has the keys, `redis_publish` the night.

Reads and appends have one short time-out, no retry, and a circuit breaker: a server that is down costs a
few requests one time-out each, and later requests nothing.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from features.store import Event, StoredUser
from features.store.breaker import CircuitBreaker
from features.store.redis_keys import SEAL, Base, Keys, pack_event, read_base, unpack_event
from features.store.redis_nodes import Address, Nodes, by_node, open_nodes, parse_url
from features.store.redis_publish import Publisher
from recsys.config import StoreConfig
from recsys.errors import MissingUsersError, StoreError, StoreMovedError

UNREACHABLE = (RedisConnectionError, RedisTimeoutError, RedisClusterException)
_FAILED = (RedisError, RedisClusterException)  # in redis-py TimeoutError is not a ConnectionError
APPEND_CHUNK = 500
"""Commands sent at once, so that one time-out is enough for any batch."""
SWEEP_EVERY = 64
"""A user's old events are looked for each time that their number passes a multiple of this."""
_ACTIVATE = """
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return {'missing', ''} end
local live = redis.call('GET', KEYS[1]) or ''
if live ~= ARGV[1] and live ~= ARGV[2] then return {'other', live} end
redis.call('SET', KEYS[1], ARGV[1])
return {'done', live}
"""
T = TypeVar("T")


class RedisStore:
    """Base and delta in Redis or Valkey. Nothing is connected before the first call."""

    def __init__(self, address: Address, config: StoreConfig) -> None:
        self._address, self._config = address, config
        self._keys = Keys(config.namespace)
        self._nodes = open_nodes(address, config, config.read_timeout_ms)
        self._bulk = open_nodes(address, config, config.write_timeout_ms)
        self._short: dict[int, Nodes] = {}
        """By their time-out in milliseconds."""
        self._short_lock = threading.Lock()
        self._publisher = Publisher(self._bulk, self._keys, str(address), config)
        self._breaker = CircuitBreaker(
            str(address), config.breaker_failures, config.breaker_open_ms / 1000, UNREACHABLE
        )
        self._bases: dict[str, Base] = {}
        self._delta_before = 0

    @classmethod
    def from_config(cls, config: StoreConfig, folder: Path) -> "RedisStore":  # noqa: ARG003
        """Prepare the store that a config names; it needs no folder."""
        return cls(parse_url(config.url), config)

    def get_many(
        self, version: str, user_ids: Sequence[str], within_s: float | None = None
    ) -> list[StoredUser]:
        """Read base and delta of users, in order.

        A socket's time-out is its pool's, so a caller with little time gets a pool whose time-out is a half,
        a quarter, ... of `read_timeout_ms`, made when first needed.
        Raises: StoreError when the version is not there, or was not read in time.
        """
        nodes = self._nodes_within(within_s)
        return self._guarded(
            f"read version {version}",
            lambda: self._read(nodes, version, user_ids),
            with_little_time=nodes is not self._nodes,
        )

    def append(self, events: Iterable[Event], within_s: float | None = None) -> int:
        """Add events to the delta, a feedback_id of a user once. Give how many were new.

        Redis has no writers to wait for. Nothing is sent after `within_s`, and an answer is waited for as
        `get_many` does.
        """
        until = None if within_s is None else time.monotonic() + within_s
        self._require_time(until)  # before the breaker, which would take this for an answer of the server
        by_user: dict[str, dict[str, bytes]] = {}
        for event in events:
            by_user.setdefault(event.user_id, {}).setdefault(event.feedback_id, pack_event(event))
        if not by_user:
            return 0
        nodes = self._nodes_within(within_s)
        return self._guarded(
            "append", lambda: self._append(nodes, by_user, until), with_little_time=nodes is not self._nodes
        )

    def publish(
        self, version: str, values: Iterable[tuple[str, bytes]], meta: Mapping[str, str], expected: int
    ) -> int:
        """Write a version's base, verify it, and count its users. Publishing it again does nothing."""
        return self._slowly(
            f"publish version {version}", lambda: self._publish(version, values, meta, expected)
        )

    def publish_same(self, version: str, other: str) -> bool:
        """Let a version read the generation of another one; give False when that is not there."""
        return self._slowly(f"publish version {version}", lambda: self._publisher.share(version, other))

    def activate(self, version: str, expect: str | None) -> None:
        """Point the store at a version, if it still points at `expect` (or already at that version)."""
        keys = (self._keys.current, self._keys.ready)
        found: list[bytes] = self._slowly(
            f"activate version {version}",
            lambda: cast(Any, self._bulk.of(keys[0])).eval(_ACTIVATE, 2, *keys, version, expect or ""),
        )
        outcome, live = (part.decode() for part in found)
        if outcome == "missing":
            raise StoreError(f"{version} is not in {self._address}: publish version {version} first")
        if outcome == "other":
            raise StoreMovedError(
                f"the store points at {live or None!r}, not at {expect!r}: another publisher was first; "
                "look at what is live and run again"
            )

    def current(self) -> str | None:
        """Give the version the store points at."""
        found = self._guarded(
            "read the pointer", lambda: self._nodes.of(self._keys.current).get(self._keys.current)
        )
        return None if found is None else cast(bytes, found).decode()

    def gc(self, keep: Iterable[str], delta_before_ms: int) -> list[str]:
        """Remove other versions and what killed publishers left, hide older events; give the versions."""
        removed = self._slowly("collect", lambda: self._publisher.collect(set(keep), delta_before_ms))
        self._delta_before = max(self._delta_before, delta_before_ms)
        for version in removed:
            self._bases.pop(version, None)
        return removed

    def health(self) -> dict[str, str]:
        """Say how the store is; never raises."""
        try:
            current = self.current() or ""
            memory = self._guarded(
                "ask", lambda: [cast(Any, client).info("memory") for client in self._nodes.primaries()]
            )
        except StoreError as error:
            return {"status": "down", "error": str(error), "circuit": self._breaker.state}
        used = sum(int(m["used_memory"]) for m in memory)
        return {"status": "ok", "current": current, "used_memory": str(used), "nodes": str(len(memory))}

    def close(self) -> None:
        """Close all connections."""
        for nodes in (self._nodes, self._bulk, *self._short.values()):
            nodes.close()

    def _nodes_within(self, within_s: float | None) -> Nodes:
        limit_ms = self._config.read_timeout_ms
        if within_s is None or 1000 * within_s >= limit_ms:
            return self._nodes
        while limit_ms > max(1, 1000 * within_s):
            limit_ms = limit_ms // 2
        with self._short_lock:
            if limit_ms not in self._short:
                connect_ms = min(limit_ms, self._config.connect_timeout_ms)
                config = self._config.model_copy(update={"connect_timeout_ms": connect_ms})
                self._short[limit_ms] = open_nodes(self._address, config, limit_ms)
            return self._short[limit_ms]

    def _read(self, nodes: Nodes, version: str, user_ids: Sequence[str]) -> list[StoredUser]:
        base = self._bases.get(version) or self._resolve(nodes, version)
        users = list(dict.fromkeys(user_ids))
        buckets = [self._keys.bucket(base, user) for user in users]
        found: dict[str, StoredUser] = {}
        for client, places in by_node(nodes, buckets):
            pipeline = client.pipeline(transaction=False)
            for place in places:
                pipeline.hmget(buckets[place], [users[place], cast(str, SEAL)])
                pipeline.hgetall(self._keys.delta(users[place]))
            replies = pipeline.execute()
            for place, (packed, seal), delta in zip(places, replies[::2], replies[1::2], strict=True):
                self._check_seal(base, seal)
                found[users[place]] = self._stored(base, users[place], packed, delta)
        return [found[user] for user in user_ids]

    def _stored(
        self, base: Base, user_id: str, packed: bytes | None, delta: Mapping[bytes, bytes]
    ) -> StoredUser:
        events = [unpack_event(user_id, name, value) for name, value in delta.items()]
        events = [e for e in events if e.received_at_ms >= self._delta_before]
        events.sort(key=lambda e: (e.received_at_ms, e.feedback_id))
        newest = events[-self._config.events_per_user :]
        return StoredUser(None if packed is None else base.codec.unpack(packed), tuple(newest))

    def _check_seal(self, base: Base, seal: bytes | None) -> None:
        if seal != base.generation.encode():
            self._bases.pop(base.version, None)
            raise MissingUsersError(
                f"{base.version} is no longer whole in {self._address}: it was collected or evicted; "
                "publish it again, and keep maxmemory-policy from evicting"
            )

    def _resolve(self, nodes: Nodes, version: str) -> Base:
        """Find a version's generation, once a process: a generation never changes."""
        client = nodes.of(self._keys.ready)
        pipeline = client.pipeline(transaction=False)
        pipeline.hget(self._keys.ready, version)
        pipeline.get(self._keys.delta_before)
        record, delta_before = pipeline.execute()
        if record is None:
            raise MissingUsersError(
                f"{version} is not in {self._address}: it was never published or was collected"
            )
        self._delta_before = max(self._delta_before, int(delta_before or 0))
        base = self._bases[version] = read_base(record)
        return base

    def _append(self, nodes: Nodes, by_user: Mapping[str, Mapping[str, bytes]], until: float | None) -> int:
        users = list(by_user)
        keys = [self._keys.delta(user) for user in users]
        added = 0
        for client, places in by_node(nodes, keys):
            pipeline = client.pipeline(transaction=False)
            queued: list[tuple[str, int]] = []
            for place in places:
                for name, packed in by_user[users[place]].items():
                    pipeline.hsetnx(keys[place], name, cast(str, packed))
                pipeline.pexpire(keys[place], 1000 * self._config.delta_ttl)
                pipeline.hlen(keys[place])
                queued.append((keys[place], len(by_user[users[place]])))
                if len(pipeline) >= APPEND_CHUNK:
                    self._require_time(until)
                    added += self._settle(client, queued, pipeline.execute())
                    queued = []
            self._require_time(until)
            added += self._settle(client, queued, pipeline.execute())
        return added

    def _require_time(self, until: float | None) -> None:
        """Check that an append may go on.

        Raises: StoreError.
        """
        if until is not None and time.monotonic() >= until:
            raise StoreError(f"no time was left to append to {self._address}; allow a longer deadline")

    def _settle(self, client: redis.Redis, queued: Sequence[tuple[str, int]], replies: list[int]) -> int:
        """Count what was new, and sweep the users whose events have become many."""
        added, at = 0, 0
        for key, num_events in queued:
            new, length = sum(replies[at : at + num_events]), replies[at + num_events + 1]
            at += num_events + 2
            added += new
            if length // SWEEP_EVERY > (length - new) // SWEEP_EVERY:
                self._sweep(client, key)
        return added

    def _sweep(self, client: redis.Redis, key: str) -> None:
        """Drop events that are in every base, and the oldest beyond the limit."""
        events = cast("dict[bytes, bytes]", client.hgetall(key))
        order = sorted(events, key=lambda name: (unpack_event("", name, events[name]).received_at_ms, name))
        old = [n for n in order if unpack_event("", n, events[n]).received_at_ms < self._delta_before]
        drop = {*old, *order[: -self._config.events_per_user]}
        if drop:
            client.hdel(key, *cast("set[str]", drop))

    def _publish(
        self, version: str, values: Iterable[tuple[str, bytes]], meta: Mapping[str, str], expected: int
    ) -> int:
        record = cast("bytes | None", self._bulk.of(self._keys.ready).hget(self._keys.ready, version))
        if record is not None:
            return read_base(record).users
        return self._publisher.publish(version, values, meta, expected)

    def _guarded(self, what: str, operation: Callable[[], T], *, with_little_time: bool = False) -> T:
        """Run a short operation behind the breaker; every failure is a StoreError."""
        try:
            return self._breaker.call(operation, with_little_time=with_little_time)
        except _FAILED as error:
            if isinstance(error, (*UNREACHABLE, MovedError)) and not with_little_time:
                self._nodes.on_failure()
            raise StoreError(_explain(what, self._address, error)) from error

    def _slowly(self, what: str, operation: Callable[[], T]) -> T:
        """Run a step of publishing: long time-outs and no breaker, because no request waits for it."""
        try:
            return operation()
        except _FAILED as error:
            self._bulk.on_failure()
            raise StoreError(_explain(what, self._address, error)) from error


def _explain(what: str, address: Address, error: Exception) -> str:
    remedy = "check that the server is up and that [store] url, password_env and the time-outs are right"
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        remedy = "the server is full: raise maxmemory, or lower [store] keep, and run again"
    return f"cannot {what} in {address}: {type(error).__name__}: {error}; {remedy}"
