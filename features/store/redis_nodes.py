"""Connections to Redis or Valkey, one server or a cluster: which client owns a key. No retries anywhere.

redis-py's own cluster pipeline tries every timed-out command again, one by one; here each node gets one plain
pipeline, and what fails, fails.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import redis
import structlog
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from recsys.config import StoreConfig
from recsys.errors import ConfigError

DEFAULT_PORT = 6379
_log = structlog.get_logger(__name__)


class Nodes(Protocol):
    """The servers behind one url."""

    def of(self, key: str) -> redis.Redis:
        """Give the client of the server that owns a key."""

    def primaries(self) -> list[redis.Redis]:
        """Give a client of every server that holds keys."""

    def on_failure(self) -> None:
        """Learn that a call failed: the cluster may have changed."""

    def close(self) -> None:
        """Close all connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A store's url, taken apart; it never holds the password."""

    host: str
    port: int
    db: int
    username: str | None
    tls: bool
    cluster: bool

    def __str__(self) -> str:
        scheme = ("rediss" if self.tls else "redis") + ("+cluster" if self.cluster else "")
        return f"{scheme}://{self.host}:{self.port}" + ("" if self.cluster else f"/{self.db}")


def parse_url(url: str) -> Address:
    """Take a store's url apart.

    Raises: ConfigError for what is no such url.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
        db = int(parts.path.strip("/") or 0)
    except ValueError as error:
        raise ConfigError(f"[store] url: {error}; write redis://host:{DEFAULT_PORT}/0") from None
    cluster = parts.scheme.endswith("+cluster")
    if not parts.hostname or parts.query or parts.password or (cluster and db):
        raise ConfigError(
            f"[store] url = {parts.scheme}://…: write {parts.scheme}://user@host:port"
            + ("" if cluster else "/database")
            + " without password or query; the other settings are keys of [store]"
        )
    return Address(
        host=parts.hostname,
        port=port,
        db=db,
        username=parts.username,
        tls=parts.scheme.startswith("rediss"),
        cluster=cluster,
    )


def open_nodes(address: Address, config: StoreConfig, timeout_ms: int) -> Nodes:
    """Prepare connections; none is made before the first call.

    Args: timeout_ms: of each read from a socket.
    """
    options: dict[str, Any] = {
        "username": address.username,
        "password": os.environ.get(config.password_env) or None,
        "socket_connect_timeout": config.connect_timeout_ms / 1000,
        "socket_timeout": timeout_ms / 1000,
        "max_connections": config.pool_size,
        "protocol": 2,
    }
    if address.tls:
        options |= {
            "ssl_ca_certs": config.tls_ca_file and str(config.tls_ca_file),
            "ssl_certfile": config.tls_cert_file and str(config.tls_cert_file),
            "ssl_keyfile": config.tls_key_file and str(config.tls_key_file),
        }
    return Cluster(address, options) if address.cluster else Single(address, options)


class Single:
    """One server, behind one pool."""

    def __init__(self, address: Address, options: dict[str, Any]) -> None:
        # A full pool makes a call wait as long as a slow server would, not fail and not wait for ever.
        self._pool: redis.ConnectionPool = cast(Any, redis.BlockingConnectionPool)(
            host=address.host,
            port=address.port,
            db=address.db,
            timeout=options["socket_timeout"],
            retry=Retry(NoBackoff(), 0),
            connection_class=redis.SSLConnection if address.tls else redis.Connection,
            **options,
        )
        self._client = redis.Redis(connection_pool=self._pool)

    def of(self, key: str) -> redis.Redis:
        """Give the client."""
        return self._client

    def primaries(self) -> list[redis.Redis]:
        """Give the client."""
        return [self._client]

    def on_failure(self) -> None:
        """Do nothing: there is one server."""

    def close(self) -> None:
        """Close the pool."""
        self._client.close()
        self._pool.disconnect()


class Cluster:
    """A cluster; its map of slots is read at the first call, and again in the background after a failure.

    Calls look a key up in a copy of it and take no lock of redis-py's: it holds those while it asks nodes
    that may be dead.
    """

    def __init__(self, address: Address, options: dict[str, Any]) -> None:
        self._address, self._options = address, options
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._found: Any = None
        self._clients: list[redis.Redis] = []

    def of(self, key: str) -> redis.Redis:
        """Give the client of the primary that owns a key."""
        return self._map()[key_slot(key.encode())]

    def primaries(self) -> list[redis.Redis]:
        """Give a client of every primary."""
        return list({id(client): client for client in self._map()}.values())

    def on_failure(self) -> None:
        """Read the map of slots again in a thread of its own; at most one at a time."""
        if self._clients and self._refreshing.acquire(blocking=False):
            threading.Thread(target=self._refresh, name="cluster-slots", daemon=True).start()

    def close(self) -> None:
        """Close every node's pool."""
        with self._refreshing, self._lock:
            self._clients = []
            if self._found is not None:
                self._found.close()
                self._found = None

    def _map(self) -> list[redis.Redis]:
        """Give the client of each slot; of several first callers one asks and the others wait for it."""
        if self._clients:
            return self._clients
        with self._lock:
            if not self._clients:
                self._found = RedisCluster(
                    host=self._address.host,
                    port=self._address.port,
                    ssl=self._address.tls,
                    retry=Retry(NoBackoff(), 0),
                    **self._options,
                )
                self._clients = self._copy()
            return self._clients

    def _copy(self) -> list[redis.Redis]:
        nodes = self._found.nodes_manager.slots_cache
        return [self._found.get_redis_connection(nodes[slot][0]) for slot in range(REDIS_CLUSTER_HASH_SLOTS)]

    def _refresh(self) -> None:
        try:
            self._found.nodes_manager.initialize()
            self._clients = self._copy()
        except (RedisError, RedisClusterException) as error:
            _log.warning("cluster_slots_not_read", store=str(self._address), error=str(error))
        finally:
            self._refreshing.release()


def by_node(nodes: Nodes, keys: Sequence[str]) -> Iterator[tuple[redis.Redis, list[int]]]:
    """Group keys by the client that owns them: (client, places in `keys`)."""
    groups: dict[int, tuple[redis.Redis, list[int]]] = {}
    for place, key in enumerate(keys):
        client = nodes.of(key)
        groups.setdefault(id(client), (client, []))[1].append(place)
    return iter(groups.values())
