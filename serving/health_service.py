"""The gRPC health service of both ports: the server, its services, and whether the live bundle answers."""

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
    """grpc.health.v1 with List, which the packaged servicer lacks. It has a thread of its own."""

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=True)
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="health")
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

    def _list(self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext) -> Any:
        """Return every service's health."""
        names = ("", RANKING, ADMIN, BUNDLE)
        statuses = {name: self.Check(health_pb2.HealthCheckRequest(service=name), context) for name in names}
        return health_pb2.HealthListResponse(statuses=statuses)
