"""The night and the server with their users in Valkey: published, served, hung, and back."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import redis

from features.store import open_store
from features.store.redis import RedisStore
from features.store.redis_nodes import open_nodes
from recsys.cli import run
from recsys.config import load_config
from recsys.log import InteractionLog
from recsys.registry import Registry
from serving.app import Server
from serving.client import RecsysClient
from serving.client_values import Feedback
from serving.request import STORE_UNAVAILABLE
from serving.server_options import ServerOptions

TINY = Path(__file__).parents[1] / "serving" / "tiny.toml"
LAST = date(2026, 1, 30)


class Clock:
    def now_ms(self) -> int:
        return int(datetime(2026, 1, 31, 9, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture(scope="module")
def shop(start_valkey, tmp_path_factory):
    """Give (server, folder) after one night into Valkey: `log`, `runs`, `shop.toml`."""
    valkey = start_valkey()
    folder = tmp_path_factory.mktemp("valkey shop")
    store = f"""
[store]
url = "redis://127.0.0.1:{valkey.port}"
read_timeout_ms = 60000
connect_timeout_ms = 60000
write_timeout_ms = 120000
"""
    (folder / "shop.toml").write_text(TINY.read_text() + store)
    size = ["--days", "5", "--users", "300", "--items", "150"]
    assert run(["simulate", "--out", str(folder / "log"), "--seed", "3", *size]) == 0
    assert _nightly(folder) == 0
    return valkey, folder


def _nightly(folder: Path) -> int:
    command = ["nightly", "--config", str(folder / "shop.toml"), "--log", str(folder / "log")]
    return run([*command, "--runs", str(folder / "runs"), "--date", str(LAST)])


@pytest.fixture
def server(shop):
    _, folder = shop
    options = ServerOptions(
        config=load_config(folder / "shop.toml"),
        log=folder / "log",
        runs=folder / "runs",
        clock=Clock(),
        listen="127.0.0.1:0",
        admin_listen="127.0.0.1:0",
    )
    server = Server(options)
    server.start()
    yield server
    server.stop(1.0)


@pytest.fixture
def client(server):
    with RecsysClient(f"127.0.0.1:{server.port}", timeout_s=120) as client:
        yield client


def _some_user(folder: Path) -> str:
    feedback = InteractionLog(folder / "log").read("feedback", date(2026, 1, 29))
    return str(feedback["user_id"].value_counts(sort=True)["user_id"][0])


def test_the_night_publishes_into_valkey(shop):
    _, folder = shop
    version = Registry(folder / "runs").current()
    store = open_store(load_config(folder / "shop.toml").store, folder / "runs")
    assert store.current() == version
    assert store.get_many(version, [_some_user(folder)])[0].base is not None
    store.close()
    assert not list(folder.glob("runs/store/*"))  # nothing of SQLite
    assert _nightly(folder) == 0  # run again: it does nothing


def test_a_click_is_seen_by_the_next_answer(shop, client):
    _, folder = shop
    user = _some_user(folder)
    before = client.recommend(user, 20)
    assert before.degradation == ()
    bought = before.items[0].item_id
    recorded = client.record_feedback([Feedback(user_id=user, item_id=bought, kind="purchase")])
    assert recorded.degradation == ()
    assert bought not in [item.item_id for item in client.recommend(user, 20).items]


def test_a_hung_valkey_degrades_answers_and_is_soon_bypassed(shop, server, client, until, monkeypatch):
    valkey, folder = shop
    user = _some_user(folder)
    store = server._store
    assert client.recommend(user, 10).degradation == ()
    monkeypatch.setattr(store, "health", dict)  # the server asks now and then: that would be a failure more
    with _hurried(store):
        os.kill(valkey._process.pid, signal.SIGSTOP)
        try:
            for _ in range(3):  # until the circuit opens each waits for one time-out
                assert STORE_UNAVAILABLE in client.recommend(user, 10).degradation
            assert store._breaker.state == "open"
            for _ in range(10):  # no call reaches the store now, so none waits for it
                answer = client.recommend(user, 10)
                assert len(answer.items) == 10
                assert STORE_UNAVAILABLE in answer.degradation
            recorded = client.record_feedback([Feedback(user_id=user, item_id="i000001", kind="click")])
            assert STORE_UNAVAILABLE in recorded.degradation  # kept in the journal all the same
            assert recorded.num_accepted == 1
            assert store._breaker._failed == 3
        finally:
            os.kill(valkey._process.pid, signal.SIGCONT)
    until(lambda: client.recommend(user, 10).degradation == ())


@contextlib.contextmanager
def _hurried(store: RedisStore) -> Iterator[None]:
    """Read with a short time-out, on a breaker's clock that stands: once open, the circuit stays open.

    The config says so too: a request whose share of the deadline is less than the time-out counts no failure.
    """
    store._nodes.close()
    patient, config, clock, now = store._nodes, store._config, store._breaker._clock, time.monotonic()
    store._config = config.model_copy(update={"read_timeout_ms": 100})
    store._nodes = open_nodes(store._address, store._config, 100)
    store._breaker._clock = lambda: now
    yield
    store._nodes.close()
    store._nodes, store._config, store._breaker._clock = patient, config, clock


def test_a_valkey_that_lost_everything_is_filled_by_the_night_run_again(shop, client):
    valkey, folder = shop
    user = _some_user(folder)
    with redis.Redis(port=valkey.port) as server:
        server.flushall()
    assert STORE_UNAVAILABLE in client.recommend(user, 10).degradation  # and not: an unknown user
    assert _nightly(folder) == 0
    client.recommend(user, 10)  # the server may learn only now that what it knew is gone
    assert client.recommend(user, 10).degradation == ()
