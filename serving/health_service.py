"""The gRPC health service of both ports: the server, its services, and whether the live bundle answers."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from protos.recsys.v1 import admin_pb2, ranking_pb2
from serving.call_queue import on_pool

RANKING = ranking_pb2.DESCRIPTOR.services_by_name["RankingService"].full_name
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
BUNDLE = "recsys.v1.Bundle"
"""SERVING while the live version is the one that answers."""


class Health(health.HealthServicer):  # type: ignore[misc]
    """grpc.health.v1 with List and an end of watches, which the packaged servicer lacks. It has a thread."""

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=True)
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="health")
        self._watches: set[_Watch] = set()
        self._ended = False
        self.Check = on_pool(super().Check, pool)
        self.List = on_pool(self._list, pool)

    def add_to(self, server: grpc.Server, service: str) -> None:
        """Add the health service to the server of a service, which is not serving yet."""
        self.report("", serving=False)
        self.report(service, serving=False)
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    def report(self, service: str, *, serving: bool) -> None:
        """Set one service's health."""
        status = health_pb2.HealthCheckResponse
        self.set(service, status.SERVING if serving else status.NOT_SERVING)

    def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: Any,
    ) -> None:
        """Send a service's health whenever it changes, until the caller goes or the server drains."""
        watch = _Watch(send_response_callback)
        with self._lock:
            self._watches.add(watch)
            super().Watch(request, context, watch)
            if self._ended:
                watch(None)
        context.add_callback(lambda: self._watches.discard(watch))

    def end_watches(self) -> None:
        """End every watch, now and later: by themselves they never end, and a drain waits for all calls."""
        with self._lock:
            self._ended = True
            for watch in tuple(self._watches):
                watch(None)

    def _list(self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext) -> Any:
        """Return every service's health."""
        names = ("", RANKING, ADMIN, BUNDLE)
        statuses = {name: self.Check(health_pb2.HealthCheckRequest(service=name), context) for name in names}
        return health_pb2.HealthListResponse(statuses=statuses)


class _Watch:
    """Sends on one watch; None ends it, once."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send
        self._ended = False

    def __call__(self, response: Any) -> None:
        if not self._ended:
            self._ended = response is None
            self._send(response)
