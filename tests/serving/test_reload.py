"""What goes live, and what does not: a server that stops, upserts that cannot be taken in."""

import shutil
import threading
import time

import pytest

from recsys.registry import Registry
from serving.client_values import ItemUpdate

PATIENCE_S = 120.0


@pytest.fixture
def loading(start, until, monkeypatch):
    """A server that loads v2, which lasts until `free` is set, and renews its lease meanwhile."""
    monkeypatch.setattr("serving.reload.LEASE_RENEWAL_S", 0.01)
    one, free = start(), threading.Event()
    load = one.loader

    def slow(path, store):
        assert free.wait(PATIENCE_S)
        return load(path, store)

    one.server.loader.load_model = slow
    one.publish("v2")
    until(lambda: "v2" in Registry(one.runs).leased())
    yield one, free
    free.set()


def test_a_stop_does_not_wait_for_a_version_that_is_being_loaded(loading) -> None:
    one, free = loading
    stopped = threading.Thread(target=one.server.stop, args=(0.2,))
    stopped.start()
    stopped.join(PATIENCE_S / 2)
    assert not stopped.is_alive(), "v2 is still being loaded"
    time.sleep(0.1)  # the lease would be written again
    assert Registry(one.runs).leased() == set()
    free.set()
    assert one.server.reloader.ended_within(PATIENCE_S)
    assert one.server.recommender.version == "v1", "what is loaded after the stop does not go live"
    assert Registry(one.runs).leased() == set()


def test_what_was_loaded_when_the_stop_came_does_not_go_live(start, monkeypatch) -> None:
    one = start()
    reloader = one.server.reloader
    load, stopped = reloader._load, threading.Event()

    def load_and_stop(version):
        engine = load(version)
        reloader.stop()
        stopped.set()
        return engine

    monkeypatch.setattr(reloader, "_load", load_and_stop)
    one.publish("v2")
    assert stopped.wait(PATIENCE_S)
    assert reloader.ended_within(PATIENCE_S)
    assert one.server.recommender.version == "v1"


def test_a_kept_version_does_not_go_live_before_it_has_every_withdrawal(start, until, monkeypatch) -> None:
    one = start(policy={"name": "greedy"})
    reloader, recommender = one.server.reloader, one.server.recommender
    kept = recommender.engine.live_catalogue
    one.publish("v2")
    assert recommender.wait_for("v2", PATIENCE_S)
    full = threading.Event()
    refresh = kept.refresh

    def refuse(item_ids):
        if not full.is_set():
            raise MemoryError("no room")
        refresh(item_ids)

    monkeypatch.setattr(kept, "refresh", refuse)
    one.client.upsert_items([ItemUpdate(item_id="i39", available_until=one.admin.status().now)])
    one.publish("v1")
    until(lambda: reloader.error)
    assert "v1 does not go live: v1 cannot take in 1 upserted items (MemoryError: no room)" in reloader.error
    assert one.client.recommend("u1", 1).bundle_version == "v2"
    full.set()
    assert recommender.wait_for("v1", PATIENCE_S), "it is tried again at the next look"
    assert one.client.recommend("u1", 1).items[0].item_id == "i38"
    until(lambda: reloader.error is None)
    assert one.loader.loads == ["v1", "v2"]


def test_a_server_that_can_write_no_lease_answers_all_the_same(start, until, capsys) -> None:
    """As with a RUNS that it may only read: its live version is the one that answers."""
    one = start(version=None)
    leases = one.runs / "registry" / "leases"
    shutil.rmtree(leases)
    leases.touch()
    one.publish("v1")
    assert one.server.recommender.wait_for("v1", PATIENCE_S)
    for _ in range(3):
        one.server.reloader.check()
    assert one.admin.status().reload_error == ""
    assert capsys.readouterr().out.count("lease_not_written") == 1
    leases.unlink()
    until(lambda: leases.is_dir() and "v1" in Registry(one.runs).leased())
