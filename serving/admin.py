"""The gRPC servicer of AdminService: the registry's versions, the live pointer, and the server's status."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from features.store import FeatureStore
from protos.recsys.v1 import admin_pb2 as pb
from protos.recsys.v1 import admin_pb2_grpc
from recsys.errors import MissingUsersError, RegistryError, StoreError
from recsys.records import NightRecord
from serving.call_queue import time_left
from serving.clock import Clock
from serving.facts_publisher import FactsPublisher
from serving.journal import Journal
from serving.recommender import Recommender
from serving.reload import Reloader
from serving.request import JOURNAL_UNAVAILABLE, NO_BUNDLE
from serving.request_checks import check_id
from serving.stats_board import StatsBoard, Totals, WorkerStatus

# How long Activate and Rollback wait for all workers to serve the new version, and how often they look.
_WAIT_S = 60.0
_LOOK_S = 0.02
_WHY = "AdminService"


class VersionRegistry(Protocol):
    """The registry, as far as AdminService needs it."""

    def current(self) -> str | None:
        """Read the live pointer."""

    def versions(self) -> list[str]:
        """List versions, oldest first."""

    def record(self, version: str) -> NightRecord | None:
        """Read a version's record."""

    def activate(
        self, version: str, expect: Any = Any, verified: Collection[str] = (), why: str = ""
    ) -> None:
        """Make a version live, if `expect` is live now; `Any`: whatever is live."""

    def rollback(
        self, verified: Collection[str] = (), why: str = "", check: Callable[[str], object] = ...
    ) -> str:
        """Make the version before the live one live."""


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """Answers the four calls of the admin port."""

    def __init__(
        self,
        registry: VersionRegistry,
        recommender: Recommender,
        reloader: Reloader,
        journal: Journal,
        board: StatsBoard,
        facts: FactsPublisher,
        clock: Clock,
        threads: int,
        store: FeatureStore | None = None,
    ) -> None:
        self._registry = registry
        self._recommender = recommender
        self._reloader = reloader
        self._journal = journal
        self._board = board
        self._facts = facts
        self._clock = clock
        self._threads = threads
        self._store = store
        self._started_at_ms = clock.now_ms()

    def ListVersions(
        self, request: pb.ListVersionsRequest, context: grpc.ServicerContext
    ) -> pb.ListVersionsResponse:
        """List versions, newest first."""
        serving, loaded = self._recommender.version, self._recommender.loaded.versions
        with _registry_errors():
            current = self._registry.current()
            verdicts = {v: _verdict(self._registry.record(v)) for v in reversed(self._registry.versions())}
        return pb.ListVersionsResponse(
            versions=[
                pb.Version(
                    version=version,
                    verdict=verdict,
                    current=version == current,
                    serving=version == serving,
                    loaded=version in loaded,
                )
                for version, verdict in verdicts.items()
            ]
        )

    def Activate(self, request: pb.ActivateRequest, context: grpc.ServicerContext) -> pb.ActivateResponse:
        """Move the live pointer."""
        check_id("version", request.version)
        expect = (request.expected_current or None) if request.HasField("expected_current") else Any
        with _registry_errors():
            previous = self._registry.current()
            self._require_users(request.version)
            self._registry.activate(request.version, expect, self._recommender.loaded.versions, _WHY)
        return pb.ActivateResponse(
            previous_version=previous or "", serving=self._follow(request.version, context)
        )

    def Rollback(self, request: pb.RollbackRequest, context: grpc.ServicerContext) -> pb.RollbackResponse:
        """Move the live pointer back."""
        with _registry_errors():
            version = self._registry.rollback(self._recommender.loaded.versions, _WHY, self._require_users)
        return pb.RollbackResponse(version=version, serving=self._follow(version, context))

    def GetStatus(self, request: pb.GetStatusRequest, context: grpc.ServicerContext) -> pb.GetStatusResponse:
        """Report the server's status."""
        model = self._recommender.engine.model
        degradation = [] if self._journal.healthy else [JOURNAL_UNAVAILABLE]
        degradation += [] if self._recommender.version else [NO_BUNDLE]
        return pb.GetStatusResponse(
            server_id=self._reloader.server_id,
            bundle_version=self._recommender.version or "",
            current_version=self._current_version(),
            reload_error=self._reloader.error or "",
            loaded_at=_timestamp(self._recommender.loaded_at_ms),
            started_at=_timestamp(self._started_at_ms),
            now=_timestamp(self._clock.now_ms()),
            degradation=degradation,
            journal_bytes=self._journal.num_bytes,
            threads=self._threads,
            device=model.device,
            index_device=model.index_device,
            index_kind=model.index_kind,
            engine=model.engine,
            engines_refused=model.engines_refused,
            store=self._facts.store_health(),
            workers=[_worker(worker) for worker in self._board.workers()],
            **_counted(self._board.totals()),  # type: ignore[arg-type]
        )

    def _require_users(self, version: str) -> None:
        """Refuse a version whose users the store has not: every user would be unknown.

        A store that does not answer stops nobody: going back has to work then, too.
        """
        try:
            if self._store is not None and version in self._registry.versions():
                self._store.get_many(version, ())
        except MissingUsersError as error:
            raise RegistryError(
                f"{error}; `recsys bundle activate {version}` publishes them again"
            ) from error
        except StoreError:
            return

    def _current_version(self) -> str:
        """Return the live version; empty when the registry cannot be read, as `reload_error` says then."""
        try:
            return self._registry.current() or ""
        except (OSError, RegistryError):
            return ""

    def _follow(self, version: str, context: grpc.ServicerContext) -> bool:
        """Wait until all workers answer with a version, within the caller's deadline."""
        self._reloader.check_now()
        remaining_s = time_left(context)  # 0 when moving the pointer took all of it
        limit_s = _WAIT_S if remaining_s is None else min(_WAIT_S, 0.8 * remaining_s)
        deadline = time.monotonic() + limit_s
        if not self._recommender.wait_for(version, limit_s):
            return False
        while not self._board.all_serve(version):  # the others look at the pointer themselves
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_S)
        return True


@contextmanager
def _registry_errors() -> Iterator[None]:
    """Say of a folder that cannot be used what to do; else it would look like a bug."""
    try:
        yield
    except OSError as error:
        raise RegistryError(f"the registry cannot be used: {error}; restore its folder or rights") from error


def _counted(totals: Totals) -> dict[str, object]:
    """Return the fields of GetStatusResponse that all workers have counted."""
    return {
        "calls": totals.num_calls(),
        "num_expired": totals.counters["expired"],
        "num_shed": totals.counters["shed"],
        "latency_ms": totals.latency_ms(),
        "stages": {
            stage: pb.LatencyQuantiles(p50_ms=found["p50"], p99_ms=found["p99"])
            for stage, found in totals.stage_ms().items()
        },
        "num_impressions": totals.counters["impressions"],
        "num_lists": totals.counters["lists"],
        "num_explored_lists": totals.counters["explored_lists"],
        "degraded_answers": totals.degraded,
    }


def _worker(worker: WorkerStatus) -> pb.WorkerStatus:
    status = pb.WorkerStatus(number=worker.number, state=worker.state, num_restarts=worker.num_restarts)
    facts = worker.facts
    if facts is not None:
        status.MergeFrom(
            pb.WorkerStatus(
                server_id=facts.server_id,
                pid=facts.pid,
                bundle_version=facts.version,
                loaded_versions=facts.loaded_versions,
                loaded_at=_timestamp(facts.loaded_at_ms),
                started_at=_timestamp(facts.started_at_ms),
                seen_at=_timestamp(facts.published_at_ms),
                reload_error=facts.reload_error,
                journal_healthy=facts.journal_healthy,
                device=facts.device,
                engine=facts.engine,
                engines_refused=facts.engines_refused,
            )
        )
    return status


def _timestamp(milliseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(milliseconds)
    return stamp


def _verdict(record: NightRecord | None) -> str:
    return str(record.verdict) if record is not None else ""
