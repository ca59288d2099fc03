"""Every online store: base per version, shared delta, publish and activate, collection, honest failures."""

import threading

import pytest

from features.store import STORES, Event, FeatureStore, open_store
from recsys.errors import ConfigError, StoreError


@pytest.fixture(params=sorted(STORES))
def url(request) -> str:
    return request.param


@pytest.fixture
def store(url, tmp_path) -> FeatureStore:
    return open_store(url, tmp_path / "a folder with 100% odd #name?")


def _event(number=0, user="u", at=1000, **values):
    base = {"item_id": "i", "kind": "click", "value": None}
    return Event(feedback_id=f"f{number}", user_id=user, received_at_ms=at, **{**base, **values})


def test_base_and_delta_are_read_in_the_order_asked(store):
    assert store.publish("v1", [("a", b"A"), ("b", b"B")], {"day": "2026-01-05"}) == 2
    store.append(
        [_event(1, "b", 30), _event(2, "b", 10), _event(3, "c", 20, value=4.5, kind="rating", item_id="ü")]
    )
    found = store.get_many("v1", ["c", "b", "nobody", "a", "b"])
    assert [f.base for f in found] == [None, b"B", None, b"A", b"B"]
    assert [[e.received_at_ms for e in f.events] for f in found] == [[20], [10, 30], [], [], [10, 30]]
    assert found[0].events == (_event(3, "c", 20, value=4.5, kind="rating", item_id="ü"),)


def test_events_of_one_instant_go_by_their_ids(store):
    store.publish("v1", [], {})
    store.append([_event(n) for n in (3, 1, 2)])
    assert [e.feedback_id for e in store.get_many("v1", ["u"])[0].events] == ["f1", "f2", "f3"]


def test_nobody_and_many(store):
    assert store.publish("v1", ((f"u{n}", b"x") for n in range(3000)), {}) == 3000
    assert store.get_many("v1", []) == []
    assert all(f.base == b"x" for f in store.get_many("v1", [f"u{n}" for n in range(3000)]))


def test_any_bytes_and_any_id(store):
    value = bytes(range(256)) * 100
    store.publish("v1", [("' OR 1=1 --", value), ("ünï", b"")], {})
    assert [f.base for f in store.get_many("v1", ["' OR 1=1 --", "ünï"])] == [value, b""]


def test_append_is_idempotent(store):
    store.publish("v1", [], {})
    assert store.append([_event(1), _event(2)]) == 2
    assert store.append([_event(2), _event(3), _event(3)]) == 1
    assert store.append([]) == 0
    assert store.append([_event(1, at=9999, kind="other")]) == 0
    assert [e.received_at_ms for e in store.get_many("v1", ["u"])[0].events] == [1000] * 3


def test_the_delta_is_shared_by_versions(store):
    store.append([_event()])
    for version in ("v1", "v2"):
        store.publish(version, [("u", version.encode())], {})
    assert [store.get_many(v, ["u"])[0].base for v in ("v1", "v2")] == [b"v1", b"v2"]
    assert all(store.get_many(v, ["u"])[0].events for v in ("v1", "v2"))


def test_publishing_twice_does_nothing(store):
    store.publish("v1", [("a", b"first")], {})
    assert store.publish("v1", [("a", b"second"), ("b", b"new")], {}) == 1
    assert store.get_many("v1", ["a", "b"])[0].base == b"first"


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()])
def test_a_publish_that_was_stopped_is_not_there(store, error):
    def values():
        yield "a", b"A"
        raise error

    with pytest.raises(type(error)):
        store.publish("v1", values(), {})
    with pytest.raises(StoreError):
        store.get_many("v1", ["a"])
    assert store.publish("v1", [("a", b"A")], {}) == 1


def test_a_user_twice_is_refused(store):
    with pytest.raises(StoreError):
        store.publish("v1", [("a", b"1"), ("a", b"2")], {})
    with pytest.raises(StoreError):
        store.get_many("v1", ["a"])


def test_a_missing_version_is_a_store_error_that_names_it(store):
    with pytest.raises(StoreError, match="v7"):
        store.get_many("v7", ["u"])
    with pytest.raises(StoreError, match="publish version v7 first"):
        store.activate("v7", None)


def test_activation_compares_and_sets(store):
    for version in ("v1", "v2", "v3"):
        store.publish(version, [], {})
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
        store.publish(version, [("u", b"x")], {})
    store.append([_event(1, at=10), _event(2, at=20), _event(3, at=30)])
    assert store.gc(["v2", "never published"], delta_before_ms=20) == ["v1", "v3"]
    found = store.get_many("v2", ["u"])[0]
    assert found.base == b"x"
    assert [e.received_at_ms for e in found.events] == [20, 30]
    with pytest.raises(StoreError):
        store.get_many("v1", ["u"])
    assert store.gc(["v2"], 0) == []


def test_what_is_open_outlives_its_collection(store):
    """A server between two versions still answers from the one it loaded."""
    store.publish("v1", [("u", b"x")], {})
    store.get_many("v1", ["u"])
    store.gc([], 0)
    assert store.get_many("v1", ["u"])[0].base == b"x"


def test_a_second_process_sees_everything(store, url, tmp_path):
    store.publish("v1", [("u", b"x")], {})
    store.append([_event()])
    store.activate("v1", None)
    other = open_store(url, tmp_path / "a folder with 100% odd #name?")
    assert other.current() == "v1"
    assert other.get_many("v1", ["u"]) == store.get_many("v1", ["u"])
    store.append([_event(5)])
    assert len(other.get_many("v1", ["u"])[0].events) == 2


def test_readers_go_on_while_the_next_version_is_published(store):
    store.publish("v1", [(f"u{n}", b"one") for n in range(500)], {})
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
        store.publish(f"v{number}", ((f"u{n}", b"next") for n in range(2000)), {})
        store.append([_event(number)])
        store.activate(f"v{number}", store.current())
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert len(store.get_many("v5", ["u"])[0].events) == 4


def test_writers_do_not_lose_each_others_events(store):
    store.publish("v1", [], {})
    added: list[int] = []

    def write(start):
        added.extend(store.append([_event(start + number), _event(number)]) for number in range(20))

    writers = [threading.Thread(target=write, args=(1000 * n,)) for n in (1, 2, 3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sum(added) == len(store.get_many("v1", ["u"])[0].events) == 80


def test_health_never_raises(store):
    assert store.health()["status"] == "ok"
    store.publish("v1", [], {})
    store.activate("v1", None)
    assert store.health() == {"status": "ok", "current": "v1"}


def test_an_unknown_scheme_lists_the_known(tmp_path):
    with pytest.raises(ConfigError, match=rf"'mysql://x': unknown scheme; known: {', '.join(STORES)}"):
        open_store("mysql://x", tmp_path)
