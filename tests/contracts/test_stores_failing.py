"""Every online store when things die: a publisher killed, a server that hangs, memory that is full."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import redis

from features.store import STORES, Event, open_store
from features.store.breaker import CircuitOpenError
from recsys.config import StoreConfig
from recsys.errors import StoreError

PLAIN = sorted(scheme for scheme in STORES if not scheme.startswith("rediss"))
SERVERS = [scheme for scheme in PLAIN if scheme != "sqlite"]
HANG_MS = 200
"""Of a read from a server that hangs; all other reads have patience: a machine may stall for seconds."""
PATIENT = {"connect_timeout_ms": 60_000, "read_timeout_ms": 60_000, "write_timeout_ms": 120_000}
PUBLISHER = """
import sys, time
from pathlib import Path
from features.store import open_store
from recsys.config import StoreConfig
patient = {"connect_timeout_ms": 60_000, "write_timeout_ms": 120_000}
store = open_store(StoreConfig(url=sys.argv[1], namespace="killed", **patient), Path(sys.argv[2]))
def values():
    for n in range(5000):
        yield f"u{n}", b"half" * 200
    print("half", flush=True)
    time.sleep(3600)
store.publish("v2", values(), {}, 10_000)
"""


@pytest.fixture(scope="module")
def servers(start_valkey):
    return {scheme: start_valkey(cluster=scheme == "redis+cluster") for scheme in SERVERS}


@pytest.fixture(params=SERVERS)
def server(request, servers):
    """Give (server, config) for one test, empty: it may be stopped and filled."""
    started = servers[request.param]
    yield started, StoreConfig(url=f"{request.param}://127.0.0.1:{started.port}", **PATIENT)
    started._process.send_signal(signal.SIGCONT)
    with redis.Redis(port=started.port) as client:
        client.config_set("maxmemory", 0)
        client.flushall()


class Clock:
    """A breaker's clock: the machine's, until it is made to stand, so that no probe comes between."""

    stands_at = None

    def __call__(self):
        return time.monotonic() if self.stands_at is None else self.stands_at

    def stand(self):
        self.stands_at = time.monotonic()

    def go_on(self):
        self.stands_at = None


def _event(name: str, user: str = "u") -> Event:
    return Event(feedback_id=name, user_id=user, item_id="i", kind="click", value=None, received_at_ms=1)


def _used(store) -> int:
    return int(store.health()["used_memory"])


@pytest.mark.parametrize("scheme", PLAIN)
def test_a_killed_publisher_changes_nothing(scheme, servers, tmp_path):
    url = f"{scheme}://127.0.0.1:{servers[scheme].port}" if scheme in servers else scheme
    store = open_store(StoreConfig(url=url, namespace="killed", **PATIENT), tmp_path)
    users = [f"u{n}" for n in range(5000)]
    store.publish("v1", ((u, b"whole") for u in users), {}, 5000)
    store.activate("v1", None)
    alone = _size(url, tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, url, str(tmp_path)], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half\n"
        assert store.gc(["v1"], 0) == []  # who is still writing is left alone
        assert _size(url, tmp_path) > alone
        child.send_signal(signal.SIGKILL)
    assert store.current() == "v1"
    assert {f.base for f in store.get_many("v1", users)} == {b"whole"}
    with pytest.raises(StoreError, match="v2"):
        store.get_many("v2", ["u1"])
    if scheme in servers:
        _let_the_lease_run_out(servers[scheme].port)
    assert store.gc(["v1"], 0) == []
    assert _size(url, tmp_path) == alone
    assert store.publish("v2", ((u, b"new") for u in users), {}, 5000) == 5000
    store.activate("v2", "v1")
    assert {f.base for f in store.get_many("v2", users)} == {b"new"}
    store.close()


def _let_the_lease_run_out(port: int) -> None:
    """Take the lease of the dead away, which ends by itself, but not now."""
    with redis.Redis(port=port) as client:
        (lease,) = client.keys("*:lease:*")
        assert client.pttl(lease) > 0
        client.delete(lease)


def _size(url: str, folder) -> int:
    """Count what a store holds: a server's keys, or files of bases."""
    if "://" in url:  # not bytes: a server's own buffers come and go
        return redis.Redis.from_url(url.replace("redis+cluster", "redis")).dbsize()
    return len(list(folder.rglob("base-*")))


def test_a_server_that_hangs(server, tmp_path, until):
    """A few reads fail by their time-out, the next ones untried; afterwards every reply is the right one."""
    valkey, config = server
    hurried = config.model_copy(update={"read_timeout_ms": HANG_MS, "breaker_open_ms": 300})
    store = open_store(hurried, tmp_path)
    clock = store._breaker._clock = Clock()
    users = [f"u{n}" for n in range(300)]
    store.publish("v1", ((u, u.encode()) for u in users), {}, 300)
    errors: list[StoreError] = []
    right: list[bool] = []
    stop = threading.Event()

    def read():
        while not stop.is_set():
            try:
                found = store.get_many("v1", users[:20])
                right.append([f.base for f in found] == [u.encode() for u in users[:20]])
            except StoreError as error:
                errors.append(error)
                time.sleep(0.001)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    until(lambda: len(right) >= 30)  # connected, and warm
    os.kill(valkey._process.pid, signal.SIGSTOP)  # somewhere in the middle of a read
    clock.stand()
    before = len(errors)

    def refused():
        return [error for error in errors[before:] if isinstance(error, CircuitOpenError)]

    until(lambda: len(refused()) > 50)
    stop.set()
    for reader in readers:
        reader.join()
    tried = [error for error in errors[before:] if not isinstance(error, CircuitOpenError)]
    assert len(tried) <= 5, "three open the circuit, two more are under way"
    assert all("Timeout" in str(error) for error in tried)
    assert all("no calls for" in str(error) for error in refused())
    os.kill(valkey._process.pid, signal.SIGCONT)
    clock.go_on()
    until(lambda: store.health()["status"] == "ok")
    for user in users:
        _read_at_last(store, user, until)
    assert all(right)
    store.close()


def _read_at_last(store, user, until) -> None:
    """Read a user whose value is their id; a hurried read may fail, but never give another's value."""

    def read():
        with contextlib.suppress(StoreError):
            assert store.get_many("v1", [user])[0].base == user.encode()
            return True
        return False

    until(read)


def test_a_server_that_is_gone_and_back(start_valkey, tmp_path, until):
    """Reads and appends fail untried while it is away; what is published again is served again."""
    valkey = start_valkey()
    store = open_store(StoreConfig(url=f"redis://127.0.0.1:{valkey.port}", **PATIENT), tmp_path)
    clock = store._breaker._clock = Clock()
    store.publish("v1", [("u", b"x")], {}, 1)
    assert store.get_many("v1", ["u"])[0].base == b"x"
    port, process = valkey.port, valkey._process
    valkey.terminate()
    process.wait()
    clock.stand()
    for _ in range(5):
        with pytest.raises(StoreError):
            store.append([_event("f")])
    with pytest.raises(CircuitOpenError):
        store.get_many("v1", ["u"])
    valkey._desired_port = port
    valkey.start(timeout=120)
    clock.go_on()
    until(lambda: store.health()["status"] == "ok")
    with pytest.raises(StoreError, match="no longer whole"):
        store.get_many("v1", ["u"])  # it came back empty: that is no unknown user
    assert store.publish("v1", [("u", b"x")], {}, 1) == 1
    assert store.get_many("v1", ["u"])[0].base == b"x"
    store.close()


def _noise(number: int, size: int = 1500) -> bytes:
    return os.urandom(size // 2) + b"%d" % number


def test_what_would_not_fit_is_refused_before_it_is_written(server, tmp_path):
    _, config = server
    store = open_store(config, tmp_path)
    _limit(store, 20_000_000)
    used = _used(store)
    taken = 0

    def values():
        nonlocal taken
        for number in range(100_000):
            taken += 1
            yield f"u{number}", _noise(number)

    both = r"100,000 users .* [\d.,]+ MB each; .* [\d.,]+ MB free of 20.0 MB.*raise maxmemory"
    with pytest.raises(StoreError, match=both):
        store.publish("v1", values(), {}, 100_000)
    assert taken <= 1000
    assert _used(store) < used + 200_000
    store.close()


def test_a_server_that_may_evict_is_refused(server, tmp_path):
    _, config = server
    store = open_store(config, tmp_path)
    _limit(store, 50_000_000, policy="allkeys-lru")
    with pytest.raises(StoreError, match="allkeys-lru: it would throw published users away"):
        store.publish("v1", [("u", b"x")], {}, 1)
    store.close()


def test_out_of_memory_leaves_the_old_version_live_and_whole(server, tmp_path):
    _, config = server
    store = open_store(config, tmp_path)
    users = [f"u{n}" for n in range(1000)]
    store.publish("v1", ((u, b"whole") for u in users), {}, 1000)
    store.activate("v1", None)
    used = _used(store)
    _limit(store, used + 8_000_000)
    with pytest.raises(StoreError, match="the server is full: raise maxmemory"):
        store.publish("v2", ((f"u{n}", _noise(n)) for n in range(100_000)), {}, 100)  # a wrong estimate
    assert store.current() == "v1"
    assert {f.base for f in store.get_many("v1", users)} == {b"whole"}
    assert _used(store) < used + 1_000_000
    with pytest.raises(StoreError, match="v2"):
        store.get_many("v2", ["u1"])
    assert store.publish("v2", ((u, b"new") for u in users), {}, 1000) == 1000
    store.activate("v2", "v1")
    assert store.gc(["v2"], 0) == ["v1"]
    store.close()


def test_a_full_server_can_be_collected(server, tmp_path):
    _, config = server
    store = open_store(config, tmp_path)
    for version in ("v1", "v2"):
        store.publish(version, ((f"u{n}", _noise(n)) for n in range(3000)), {}, 3000)
    store.activate("v2", None)
    used = _used(store)
    _limit(store, used - 500_000)
    with pytest.raises(StoreError, match="the server is full"):
        store.append([_event("f")])
    assert store.get_many("v2", ["u1"])[0].base  # reads go on, and the circuit is closed
    assert store.gc(["v2"], 0) == ["v1"]
    assert _used(store) < used - 1_000_000
    assert store.append([_event("f")]) == 1
    store.close()


def _limit(store, maximum: int, policy: str = "noeviction") -> None:
    for client in store._nodes.primaries():
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", maximum)


def test_a_caller_with_little_time_does_not_wait_and_opens_no_circuit(server, tmp_path, until):
    """Its call fails in its own time, and says nothing about the server: others wait longer."""
    valkey, config = server
    store = open_store(config, tmp_path)
    store.publish("v1", [("u", b"x")], {}, 1)
    assert store.get_many("v1", ["u"], within_s=30.0)[0].base == b"x"
    os.kill(valkey._process.pid, signal.SIGSTOP)
    for _ in range(config.breaker_failures + 1):
        began = time.monotonic()
        with pytest.raises(StoreError, match="Timeout"):
            store.get_many("v1", ["u"], within_s=0.05)
        with pytest.raises(StoreError, match="Timeout"):
            store.append([_event("f")], within_s=0.05)
        assert time.monotonic() - began < 10  # of 120
    os.kill(valkey._process.pid, signal.SIGCONT)
    assert store._breaker.state == "closed"
    assert store.get_many("v1", ["u"])[0].base == b"x"
    store.close()
