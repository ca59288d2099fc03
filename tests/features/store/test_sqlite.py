"""SQLite's own failures: each is a StoreError, or a health that says down."""

import sqlite3
import time
from contextlib import closing

import pytest

from features.store import Event
from features.store.sqlite import SQLiteStore
from recsys.config import StoreConfig
from recsys.errors import StoreError


def test_a_path_that_is_a_file(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="cannot open the store"):
        SQLiteStore(tmp_path / "store", StoreConfig())


def test_a_broken_base(tmp_path):
    store = SQLiteStore(tmp_path, StoreConfig())
    (tmp_path / "base-v1.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match="version v1"):
        store.get_many("v1", ["u"])
    with pytest.raises(StoreError, match="is not a published base"):
        store.publish("v1", [], {}, 0)


def test_a_broken_delta_is_down(tmp_path):
    SQLiteStore(tmp_path, StoreConfig())
    store = SQLiteStore.__new__(SQLiteStore)
    store.__dict__.update(SQLiteStore(tmp_path / "other", StoreConfig()).__dict__)
    for file in (tmp_path / "other").glob("delta*"):
        file.write_bytes(b"garbage" * 1000)
    assert store.health()["status"] == "down"


def test_a_lost_folder_is_down_not_an_exception(tmp_path):
    import shutil

    store = SQLiteStore(tmp_path / "store", StoreConfig())
    shutil.rmtree(tmp_path / "store")
    assert store.health()["status"] == "down"
    with pytest.raises(StoreError):
        store.get_many("v1", ["u"])
    with pytest.raises(StoreError):
        store.publish("v1", [], {}, 0)


def test_no_temporary_file_is_left(tmp_path):
    store = SQLiteStore(tmp_path, StoreConfig())
    store.publish("v1", [("u", b"x")], {"day": "1"}, 1)
    store.activate("v1", None)
    names = {p.name for p in tmp_path.iterdir()}
    assert {n for n in names if not n.startswith("delta.sqlite")} == {"base-v1.sqlite", "CURRENT", ".lock"}


def test_an_append_waits_for_another_writer_only_so_long(tmp_path):
    store = SQLiteStore(tmp_path, StoreConfig(write_timeout_ms=600_000))
    event = Event(feedback_id="f", user_id="u", item_id="i", kind="click", value=None, received_at_ms=1)
    with closing(sqlite3.connect(tmp_path / "delta.sqlite")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        for within_s in (0.05, 0.0, -1.0):
            with pytest.raises(StoreError, match="database is locked"):
                store.append([event], within_s)
    assert store.append([event], 60.0) == 1


def test_a_read_waits_for_a_lock_only_as_long_as_its_caller_can(tmp_path):
    store = SQLiteStore(tmp_path, StoreConfig(read_timeout_ms=600_000))
    store.publish("v1", [("u", b"x")], {}, 1)
    with closing(sqlite3.connect(tmp_path / "delta.sqlite", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")  # other writers lock no reader out
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(StoreError, match="locked"):
            store.get_many("v1", ["u"], within_s=0.02)
        assert time.monotonic() - began < 60
    assert store.get_many("v1", ["u"])[0].base == b"x"


def test_a_long_read_stops_when_its_time_is_over(tmp_path, monkeypatch):
    store = SQLiteStore(tmp_path, StoreConfig(events_per_user=10, read_timeout_ms=600_000))
    users = [f"u{n}" for n in range(5_000)]
    store.publish("v1", ((user, b"x") for user in users), {}, len(users))
    assert len(store.get_many("v1", users)) == len(users)
    with pytest.raises(StoreError, match="interrupted"):
        store.get_many("v1", users, within_s=0.0)
    assert len(store.get_many("v1", users, within_s=60.0)) == len(users)
