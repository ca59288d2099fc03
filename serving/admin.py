"""AdminService: proto <-> registry, recommender and statistics."""

from typing import Any, Protocol

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from protos.recsys.v1 import admin_pb2 as pb
from protos.recsys.v1 import admin_pb2_grpc
from serving.clock import Clock
from serving.journal import Journal
from serving.recommender import Recommender
from serving.reload import Reloader
from serving.request import JOURNAL_UNAVAILABLE, NO_BUNDLE
from serving.stats import Stats

# How long Activate and Rollback wait for this server to serve the new version.
_WAIT_S = 60.0


class Versions(Protocol):
    """The registry, as far as an administrator is concerned."""

    def current(self) -> str | None:
        """Read the live pointer."""

    def versions(self) -> list[str]:
        """List versions, oldest first."""

    def record(self, version: str) -> dict[str, Any]:
        """Read what is written about a version."""

    def activate(self, version: str, expect: Any = Any) -> None:
        """Make a version live; `Any` expects nothing."""

    def rollback(self) -> str:
        """Make the version before the live one live."""


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """Answers the four calls of the admin port."""

    def __init__(
        self,
        versions: Versions,
        recommender: Recommender,
        reloader: Reloader,
        journal: Journal,
        stats: Stats,
        clock: Clock,
        threads: int,
    ) -> None:
        self._versions = versions
        self._recommender = recommender
        self._reloader = reloader
        self._journal = journal
        self._stats = stats
        self._clock = clock
        self._threads = threads
        self._started_at_ms = clock.now_ms()

    def ListVersions(
        self, request: pb.ListVersionsRequest, context: grpc.ServicerContext
    ) -> pb.ListVersionsResponse:
        """List versions, newest first."""
        current, serving = self._versions.current(), self._recommender.version
        return pb.ListVersionsResponse(
            versions=[
                pb.Version(
                    version=version,
                    verdict=str(self._versions.record(version).get("verdict", "")),
                    current=version == current,
                    serving=version == serving,
                )
                for version in reversed(self._versions.versions())
            ]
        )

    def Activate(self, request: pb.ActivateRequest, context: grpc.ServicerContext) -> pb.ActivateResponse:
        """Move the live pointer."""
        previous = self._versions.current()
        expect = (request.expected_current or None) if request.HasField("expected_current") else Any
        self._versions.activate(request.version, expect)
        return pb.ActivateResponse(
            previous_version=previous or "", serving=self._follow(request.version, context)
        )

    def Rollback(self, request: pb.RollbackRequest, context: grpc.ServicerContext) -> pb.RollbackResponse:
        """Move the live pointer back."""
        version = self._versions.rollback()
        return pb.RollbackResponse(version=version, serving=self._follow(version, context))

    def GetStatus(self, request: pb.GetStatusRequest, context: grpc.ServicerContext) -> pb.GetStatusResponse:
        """Report."""
        degradation = [] if self._journal.healthy else [JOURNAL_UNAVAILABLE]
        degradation += [] if self._recommender.version else [NO_BUNDLE]
        return pb.GetStatusResponse(
            server_id=self._reloader.server_id,
            bundle_version=self._recommender.version or "",
            current_version=self._versions.current() or "",
            reload_error=self._reloader.error or "",
            loaded_at=_timestamp(self._recommender.loaded_at_ms),
            started_at=_timestamp(self._started_at_ms),
            now=_timestamp(self._clock.now_ms()),
            degradation=degradation,
            calls=self._stats.calls(),
            num_expired=self._stats.num_expired,
            num_shed=self._stats.num_shed,
            journal_bytes=self._journal.num_bytes,
            latency_ms=self._stats.latency_ms(),
            threads=self._threads,
        )

    def _follow(self, version: str, context: grpc.ServicerContext) -> bool:
        """Wait for the reloader, as long as the caller does."""
        self._reloader.hurry()
        remaining_s = context.time_remaining()
        return self._recommender.wait_for(version, min(_WAIT_S, 0.8 * (remaining_s or _WAIT_S)))


def _timestamp(milliseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(milliseconds)
    return stamp
