"""Every online store: base per version, shared delta, publish and activate, collection, many at once.

What happens when servers and publishers die is in test_stores_failing.py.
"""

import contextlib
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from features.store import STORES, Event, FeatureStore, open_store
from features.store.redis import RedisStore
from recsys.config import StoreConfig
from recsys.errors import ConfigError, StoreError

PLAIN = sorted(scheme for scheme in STORES if not scheme.startswith("rediss"))
"""The schemes with TLS differ in the socket only: tests/features/store/test_redis_nodes.py."""


@pytest.fixture(scope="module")
def urls(start_valkey) -> dict[str, str]:
    """Give a url for each scheme; the servers are shared, each test has a namespace of its own."""
    single, cluster = start_valkey(), start_valkey(cluster=True)
    ports = {"redis": single.port, "redis+cluster": cluster.port}
    return {s: f"{s}://127.0.0.1:{ports[s]}" if s in ports else s for s in STORES}


@pytest.fixture(params=PLAIN)
def config(request, urls, tmp_path) -> StoreConfig:
    return StoreConfig(
        url=urls[request.param],
        namespace=f"test-{abs(hash(tmp_path))}",
        connect_timeout_ms=60_000,  # a machine that stalls for seconds fails no read and opens no circuit
        read_timeout_ms=60_000,
        write_timeout_ms=120_000,
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "a folder with 100% odd #name?"


@pytest.fixture
def store(config, folder):
    opened = open_store(config, folder)
    yield opened
    opened.close()


def _publish(store: FeatureStore, version: str, values, expected: int = 0) -> int:
    return store.publish(version, values, {"day": "2026-01-05"}, expected)


def _event(number=0, user="u", at=1000, **values):
    base = {"item_id": "i", "kind": "click", "value": None}
    return Event(feedback_id=f"f{number}", user_id=user, received_at_ms=at, **{**base, **values})


def test_base_and_delta_are_read_in_the_order_asked(store):
    assert _publish(store, "v1", [("a", b"A"), ("b", b"B")]) == 2
    store.append(
        [_event(1, "b", 30), _event(2, "b", 10), _event(3, "c", 20, value=4.5, kind="rating", item_id="ü")]
    )
    found = store.get_many("v1", ["c", "b", "nobody", "a", "b"])
    assert [f.base for f in found] == [None, b"B", None, b"A", b"B"]
    assert [[e.received_at_ms for e in f.events] for f in found] == [[20], [10, 30], [], [], [10, 30]]
    assert found[0].events == (_event(3, "c", 20, value=4.5, kind="rating", item_id="ü"),)


def test_events_of_one_instant_go_by_their_ids(store):
    _publish(store, "v1", [])
    store.append([_event(n) for n in (3, 1, 2)])
    assert [e.feedback_id for e in store.get_many("v1", ["u"])[0].events] == ["f1", "f2", "f3"]


def test_nobody_and_many(store):
    assert _publish(store, "v1", ((f"u{n}", b"x") for n in range(3000))) == 3000
    assert store.get_many("v1", []) == []
    assert all(f.base == b"x" for f in store.get_many("v1", [f"u{n}" for n in range(3000)]))


def test_any_bytes_and_any_id(store):
    value = bytes(range(256)) * 100
    _publish(store, "v1", [("' OR 1=1 --", value), ("ünï", b"")])
    assert [f.base for f in store.get_many("v1", ["' OR 1=1 --", "ünï"])] == [value, b""]


def test_append_is_idempotent(store):
    _publish(store, "v1", [])
    assert store.append([_event(1), _event(2)]) == 2
    assert store.append([_event(2), _event(3), _event(3)]) == 1
    assert store.append([]) == 0
    assert store.append([_event(1, at=9999, kind="other")]) == 0
    assert [e.received_at_ms for e in store.get_many("v1", ["u"])[0].events] == [1000] * 3


def test_a_redis_append_sends_nothing_when_its_time_is_over(store):
    if not isinstance(store, RedisStore):
        return  # SQLite's waits for other writers, and for nothing else: tests/features/store/test_sqlite.py
    _publish(store, "v1", [])
    for within_s in (0.0, -1.0):
        for _ in range(StoreConfig().breaker_failures):
            with pytest.raises(StoreError, match="no time was left to append"):
                store.append([_event(1)], within_s)
    assert store.append([_event(1)], 60.0) == 1, "the circuit is closed: the server did nothing wrong"


def test_the_delta_is_shared_by_versions(store):
    store.append([_event()])
    for version in ("v1", "v2"):
        _publish(store, version, [("u", version.encode())])
    assert [store.get_many(v, ["u"])[0].base for v in ("v1", "v2")] == [b"v1", b"v2"]
    assert all(store.get_many(v, ["u"])[0].events for v in ("v1", "v2"))


def test_publishing_twice_does_nothing(store):
    _publish(store, "v1", [("a", b"first")])
    assert _publish(store, "v1", [("a", b"second"), ("b", b"new")]) == 1
    assert store.get_many("v1", ["a", "b"])[0].base == b"first"


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()])
def test_a_publish_that_was_stopped_is_not_there(store, error):
    def values():
        yield "a", b"A"
        raise error

    with pytest.raises(type(error)):
        _publish(store, "v1", values())
    with pytest.raises(StoreError):
        store.get_many("v1", ["a"])
    assert _publish(store, "v1", [("a", b"A")]) == 1


def test_a_user_twice_is_refused(store):
    with pytest.raises(StoreError):
        _publish(store, "v1", [("a", b"1"), ("a", b"2")])
    with pytest.raises(StoreError):
        store.get_many("v1", ["a"])


def test_a_missing_version_is_a_store_error_that_names_it(store):
    with pytest.raises(StoreError, match="v7"):
        store.get_many("v7", ["u"])
    with pytest.raises(StoreError, match="publish version v7 first"):
        store.activate("v7", None)


def test_activation_compares_and_sets(store):
    for version in ("v1", "v2", "v3"):
        _publish(store, version, [])
    assert store.current() is None
    store.activate("v1", None)
    store.activate("v2", "v1")
    with pytest.raises(StoreError, match="points at 'v2', not at 'v1'"):
        store.activate("v3", "v1")
    assert store.current() == "v2"
    store.activate("v2", "v1")  # a retry of what already happened
    assert store.current() == "v2"


def test_collection_keeps_what_is_named(store):
    for version in ("v1", "v2", "v3"):
        _publish(store, version, [("u", b"x")])
    store.append([_event(1, at=10), _event(2, at=20), _event(3, at=30)])
    assert store.gc(["v2", "never published"], delta_before_ms=20) == ["v1", "v3"]
    found = store.get_many("v2", ["u"])[0]
    assert found.base == b"x"
    assert [e.received_at_ms for e in found.events] == [20, 30]
    with pytest.raises(StoreError):
        store.get_many("v1", ["u"])
    assert store.gc(["v2"], 0) == []


def test_a_version_with_the_users_of_another_needs_none_written(store):
    """And outlives it: the base stays until the last version that reads it is collected."""
    _publish(store, "v1", [("a", b"A"), ("b", b"B")])
    assert not store.publish_same("v3", "v0"), "there is no v0"
    with pytest.raises(StoreError, match="v3"):
        store.get_many("v3", ["a"])
    assert store.publish_same("v2", "v1")
    assert store.publish_same("v2", "v1"), "again it does nothing"
    assert _publish(store, "v2", [("a", b"other")]) == 2
    store.activate("v2", expect=None)
    assert store.gc([], 0) == ["v1"]
    assert [user.base for user in store.get_many("v2", ["a", "b", "c"])] == [b"A", b"B", None]
    with pytest.raises(StoreError, match="v1"):
        store.get_many("v1", ["a"])
    assert store.publish_same("v3", "v2")
    store.activate("v3", expect="v2")
    assert store.gc(["v2"], 0) == []
    _publish(store, "v4", [("a", b"new")])
    store.activate("v4", expect="v3")
    assert store.gc([], 0) == ["v2", "v3"]
    assert store.get_many("v4", ["a"])[0].base == b"new"
    with pytest.raises(StoreError, match="v2"):
        store.get_many("v2", ["a"])


def test_a_reader_never_takes_a_collected_base_for_unknown_users(store):
    """What a server still reads is kept by its lease; should it not be, the read is whole or fails."""
    _publish(store, "v1", [("u", b"x")])
    store.get_many("v1", ["u"])
    store.gc([], 0)
    with contextlib.suppress(StoreError):
        assert store.get_many("v1", ["u"])[0].base == b"x"


def test_the_current_version_is_never_collected(store):
    for version in ("v1", "v2"):
        _publish(store, version, [("u", b"x")])
    store.activate("v1", None)
    assert store.gc([], 0) == ["v2"]
    assert store.get_many("v1", ["u"])[0].base == b"x"


def test_a_version_comes_back_after_its_collection(store):
    _publish(store, "v1", [("u", b"x")])
    store.get_many("v1", ["u"])
    assert store.gc([], 0) == ["v1"]
    assert _publish(store, "v1", [("u", b"x"), ("w", b"y")]) == 2
    for attempt in range(2):
        try:
            assert [f.base for f in store.get_many("v1", ["u"])] == [b"x"]
        except StoreError:
            assert attempt == 0  # the first read may learn that the base it knew is gone


def test_a_second_process_sees_everything(store, config, folder):
    _publish(store, "v1", [("u", b"x")])
    store.append([_event()])
    store.activate("v1", None)
    other = open_store(config, folder)
    assert other.current() == "v1"
    assert other.get_many("v1", ["u"]) == store.get_many("v1", ["u"])
    store.append([_event(5)])
    assert len(other.get_many("v1", ["u"])[0].events) == 2
    store.append([_event(6, at=5)])
    store.gc(["v1"], delta_before_ms=900)
    third = open_store(config, folder)
    assert [e.feedback_id for e in third.get_many("v1", ["u"])[0].events] == ["f0", "f5"]
    other.close()
    third.close()


def test_users_with_one_feedback_id_each_keep_theirs(store):
    _publish(store, "v1", [])
    assert store.append([_event(1, "a"), _event(1, "b"), _event(1, "a")]) == 2
    assert [len(f.events) for f in store.get_many("v1", ["a", "b"])] == [1, 1]


def test_a_users_newest_events_are_given(config, folder):
    store = open_store(config.model_copy(update={"events_per_user": 10}), folder)
    _publish(store, "v1", [])
    assert store.append([_event(n, at=1000 + n % 200) for n in range(300)]) == 300
    events = store.get_many("v1", ["u"])[0].events
    assert sorted(e.received_at_ms for e in events) == sorted(1000 + n % 200 for n in range(190, 200))
    store.close()


def test_readers_go_on_while_the_next_version_is_published(store):
    _publish(store, "v1", [(f"u{n}", b"one") for n in range(500)])
    problems: list[object] = []
    stop = threading.Event()

    def read():
        while not stop.is_set():
            try:
                found = store.get_many("v1", ["u1", "u499", "u"])
                if [f.base for f in found] != [b"one", b"one", None]:
                    problems.append(found)
            except Exception as error:
                problems.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(2, 6):
        _publish(store, f"v{number}", ((f"u{n}", b"next") for n in range(2000)))
        store.append([_event(number)])
        store.activate(f"v{number}", store.current())
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert len(store.get_many("v5", ["u"])[0].events) == 4


def test_writers_do_not_lose_each_others_events(store):
    _publish(store, "v1", [])
    added: list[int] = []

    def write(start):
        added.extend(store.append([_event(start + number), _event(number)]) for number in range(20))

    writers = [threading.Thread(target=write, args=(1000 * n,)) for n in (1, 2, 3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sum(added) == len(store.get_many("v1", ["u"])[0].events) == 80


def test_a_hundred_flips_under_readers(store, config, folder, until):
    """No read is mixed, none is missing: the base is always the one of the version asked for."""
    users = [f"u{n}" for n in range(40)]
    versions = [f"v{n}" for n in range(101)]
    _publish(store, versions[0], [(u, versions[0].encode()) for u in users])
    store.activate(versions[0], None)
    problems: list[object] = []
    reads: set[str] = set()
    collected: set[str] = set()
    stop = threading.Event()

    def read():
        mine = open_store(config, folder)
        while not stop.is_set():
            version = mine.current()
            try:
                bases = {f.base for f in mine.get_many(version, users)}
            except Exception as error:
                if version not in collected:  # by then this thread stood still for ten flips
                    problems.append(error)
                continue
            reads.add(version)
            if bases != {version.encode()}:
                problems.append((version, bases))
        mine.close()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number, (before, version) in enumerate(pairwise(versions), start=1):
        _publish(store, version, [(u, version.encode()) for u in users])
        store.activate(version, before)
        if number % 10 == 0:
            collected.update(versions[: number - 9])
            store.gc(versions[number - 9 :], 0)
        if number % 4 == 0:
            until(lambda version=version: version in reads)
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []


@pytest.fixture
def eager_threads():
    """Let threads take turns often, so that what is not atomic shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_of_two_racers_exactly_one_wins(store, config, folder, eager_threads):
    for version in ("v1", "a", "b"):
        _publish(store, version, [])
    store.activate("v1", None)
    racers = {version: open_store(config, folder) for version in ("a", "b")}
    start, lost = threading.Barrier(2), list[str]()

    def race(version):
        for _ in range(50):
            start.wait()
            try:
                racers[version].activate(version, "v1")
            except StoreError as error:
                lost.append(str(error))
            if start.wait() == 0:
                store.activate("v1", store.current())

    threads = [threading.Thread(target=race, args=(version,)) for version in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lost) == 50
    assert all("not at 'v1': another publisher was first" in message for message in lost)
    for racer in racers.values():
        racer.close()


def test_two_publishers_of_one_version(store, config, folder):
    """Whoever is first counts; the other's values are not seen, and nothing of them stays."""
    counts: list[int] = []
    start = threading.Barrier(2)

    def publish(value):
        mine = open_store(config, folder)
        start.wait()
        counts.append(_publish(mine, "v1", ((f"u{n}", value) for n in range(500))))
        mine.close()

    writers = [threading.Thread(target=publish, args=(value,)) for value in (b"one", b"two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert counts == [500, 500]
    bases = {f.base for f in store.get_many("v1", [f"u{n}" for n in range(500)])}
    assert bases in ({b"one"}, {b"two"})
    assert store.gc(["v1"], 0) == []


def test_opening_needs_no_server(config, folder, monkeypatch):
    """A server of ours starts while its store is down: only calls fail, each a StoreError, tried once."""
    if config.url == "sqlite":
        pytest.skip("there is no server to be down")
    tried, connect = [], redis.Connection._connect
    monkeypatch.setattr(redis.Connection, "_connect", lambda self: (tried.append(self), connect(self)))
    dead = config.model_copy(update={"url": config.url.rsplit(":", 1)[0] + ":1"})
    store = open_store(dead, folder)
    assert tried == []
    assert store.health()["status"] == "down"
    assert len(tried) == 1
    for call in (
        lambda: store.get_many("v1", ["u"]), lambda: store.append([_event()]), store.current,
        lambda: _publish(store, "v1", [("u", b"x")]), lambda: store.activate("v1", None),
        lambda: store.gc([], 0),
    ):  # fmt: skip
        tried.clear()
        with pytest.raises(StoreError, match="check that"):
            call()
        assert len(tried) <= 1  # none, when the circuit is open
    store.close()


def test_health_never_raises(store):
    assert store.health()["status"] == "ok"
    _publish(store, "v1", [])
    store.activate("v1", None)
    assert store.health().items() >= {"status": "ok", "current": "v1"}.items()


def test_an_unknown_scheme_lists_the_known(tmp_path):
    known = ", ".join(STORES).replace("+", r"\+")
    with pytest.raises(ConfigError, match=rf"'mysql://x': unknown scheme; known: {known}"):
        open_store(StoreConfig(url="mysql://x"), tmp_path)
