"""Lines of docs/failures.md that no other file tests: a server goes on when what it needs is taken away."""

import shutil
from types import SimpleNamespace

import pytest

from protos.recsys.v1.admin_pb2 import ActivateRequest, RollbackRequest
from recsys.errors import MissingUsersError, RegistryError, StoreError
from recsys.registry import Registry
from serving.admin import AdminService
from serving.app import Server
from serving.client import RecsysClient
from serving.client_values import CallError, Feedback
from serving.clock import SystemClock

PATIENCE_S = 120.0


def test_a_store_that_lost_its_users_is_unavailable_not_empty(server, client) -> None:
    for base in (server._options.runs / "store").glob("base-*.sqlite"):
        base.unlink()
    server._store.close()
    answer = client.recommend("u000001")
    assert answer.degradation == ("STORE_UNAVAILABLE",)
    assert len(answer.items) == 10
    assert {item.propensity_kind for item in answer.items} == {"degraded"}


def test_a_bundle_without_its_index_is_not_served(server) -> None:
    runs = server._options.runs
    version = Registry(runs).current()
    (Registry(runs).path(version) / "index.faiss").unlink()
    shutil.rmtree(runs / "serving" / "cache")  # the verified copy, of which `server` goes on
    starting = Server(server._options)
    starting.start()
    with RecsysClient(f"127.0.0.1:{starting.port}", timeout_s=PATIENCE_S) as client:
        assert client.recommend("u000001").degradation == ("NO_BUNDLE",)
    starting.stop(1.0)
    error = starting.reloader.error or ""
    assert error.startswith(f"{version} was not loaded: ")
    assert "index.faiss" in error
    with RecsysClient(f"127.0.0.1:{server.port}", timeout_s=PATIENCE_S) as client:
        assert client.recommend("u000001").bundle_version == version


def test_a_registry_that_cannot_be_read_changes_nothing(start) -> None:
    one = start()
    shutil.move(one.runs / "registry", one.runs / "away")
    (one.runs / "registry").write_text("a file")
    one.server.reloader.check()
    assert one.admin.status().reload_error.startswith("the registry cannot be used: ")
    assert one.client.recommend("u1").bundle_version == "v1"
    for call in (one.admin.versions, one.admin.rollback):
        with pytest.raises(CallError, match="FAILED_PRECONDITION: the registry cannot be used"):
            call()
    (one.runs / "registry").unlink()
    shutil.move(one.runs / "away", one.runs / "registry")
    one.server.reloader.check()
    assert one.admin.status().reload_error == ""


def test_a_damaged_pointer_changes_nothing(start) -> None:
    one = start()
    current = one.runs / "registry" / "CURRENT"
    content = current.read_bytes()
    current.write_bytes(b"\xff\xfe")
    one.server.reloader.check()
    assert "CURRENT holds no text" in one.admin.status().reload_error
    assert one.client.recommend("u1").bundle_version == "v1"
    current.write_bytes(content)
    one.server.reloader.check()
    assert one.admin.status().reload_error == ""


def test_activate_waits_no_longer_than_its_caller() -> None:
    """Checking a large version's files may take all of the caller's time."""
    waited = []
    recommender = SimpleNamespace(wait_for=lambda version, limit_s: waited.append(limit_s))
    registry = SimpleNamespace(activate=lambda *_: None, current=lambda: "v1")
    recommender.loaded = SimpleNamespace(versions=())
    reloader = SimpleNamespace(check_now=lambda: None)
    admin = AdminService(registry, recommender, reloader, None, None, None, SystemClock(), 1)
    for remaining_s in (0.0, 10.0, 1_000.0, None):
        context = SimpleNamespace(time_remaining=lambda remaining_s=remaining_s: remaining_s)
        assert not admin.Activate(ActivateRequest(version="v2"), context).serving
    assert waited == [0.0, 8.0, 60.0, 60.0]


def test_activate_refuses_a_version_whose_users_the_store_has_not() -> None:
    """And a store that does not answer stops nobody: a rollback has to work then."""
    activated: list[str] = []

    class Store:
        error: StoreError | None = None

        def get_many(self, version: str, user_ids: object) -> list[object]:
            if self.error is not None:
                raise self.error
            return []

    store = Store()
    recommender = SimpleNamespace(wait_for=lambda *_: True, loaded=SimpleNamespace(versions=()))
    registry = SimpleNamespace(
        activate=lambda version, *_: activated.append(version),
        rollback=lambda _verified, _why, check: check("v1") or "v1",
        current=lambda: "v1",
        versions=lambda: ["v1", "v2"],
    )
    reloader = SimpleNamespace(check_now=lambda: None)
    board = SimpleNamespace(all_serve=lambda _: True)
    admin = AdminService(registry, recommender, reloader, None, board, None, SystemClock(), 1, store)
    context = SimpleNamespace(time_remaining=lambda: 10.0)
    store.error = MissingUsersError("v2 is not there")
    with pytest.raises(RegistryError, match="v2 is not there; `recsys bundle activate v2` publishes them"):
        admin.Activate(ActivateRequest(version="v2"), context)
    with pytest.raises(RegistryError, match="`recsys bundle activate v1`"):
        admin.Rollback(RollbackRequest(), context)
    assert activated == []
    for answer in (None, StoreError("down")):
        store.error = answer
        assert admin.Activate(ActivateRequest(version="v2"), context).serving
        assert admin.Rollback(RollbackRequest(), context).version == "v1"
    assert activated == ["v2", "v2"]


class JumpingClock(SystemClock):
    """The machine's clock, ahead by so much."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


def test_a_clock_that_jumps_ahead_costs_no_later_call(start) -> None:
    """A day ahead and back again: lists, their pages and feedback go on."""
    clock = JumpingClock()
    one = start(clock=clock)
    first = one.client.recommend("u1")
    for clock.ahead_ms in (86_400_000, 0):
        assert one.client.recommend("u1").degradation == ()
        click = Feedback.of(first.items[0], "u1", "click")
        assert one.client.record_feedback([click]).num_accepted == 1
    assert len(one.client.recommend("u1", page_token=first.next_page_token).items) == 10
