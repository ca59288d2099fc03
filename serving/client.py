"""A typed gRPC client with deadlines and retries; it takes and returns plain values.

with RecsysClient("127.0.0.1:50051") as client:
    answer = client.recommend("user-7", page_size=10, context={"device": "mobile"})
    client.record_feedback([Feedback.of(answer.items[0], "user-7", "click")])
"""

import json
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from protos.recsys.v1 import admin_pb2, admin_pb2_grpc, ranking_pb2_grpc
from protos.recsys.v1 import ranking_pb2 as pb
from recsys.errors import RequestError
from serving.addresses import is_loopback
from serving.client_messages import event_message, item_message, new_message, with_messages
from serving.client_replies import read_answer, read_status
from serving.client_values import (
    Answer,
    CallError,
    Feedback,
    FeedbackReport,
    ItemUpdate,
    ServerStatus,
)

DEFAULT_TIMEOUT_S = 2.0
MAX_TIMEOUT_S = 86_400.0
# The server did nothing then. With RESOURCE_EXHAUSTED it says when to try again, or not to (the metadata
# grpc-retry-pushback-ms); gRPC obeys that for retryable statuses only. Throttling keeps retries from
# worsening an overload, and the deadline is that of the whole call.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "recsys.v1.RankingService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                # CANCELLED: gRPC's status of a call that reaches a server as it ends, which has not taken it.
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}
_REQUEST_ID_KEY = "recsys-request-id"
_Reply = TypeVar("_Reply")
_OPTIONS = (("grpc.service_config", json.dumps(_SERVICE_CONFIG)), ("grpc.enable_retries", 1))
# gRPC would ask the proxy of http_proxy for this machine itself.
_NO_PROXY = (("grpc.enable_http_proxy", 0),)


class _Connection:
    """A gRPC channel that is closed at the end of the `with` block."""

    def __init__(
        self,
        target: str,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        if not 0.0 < timeout_s <= MAX_TIMEOUT_S:  # gRPC would say of any other that it has passed
            raise RequestError(f"timeout_s is {timeout_s}; give seconds above 0, at most {MAX_TIMEOUT_S:g}")
        self.target = target
        self.timeout_s = timeout_s
        options = _OPTIONS + _NO_PROXY * is_loopback(target)
        self.channel = (
            grpc.insecure_channel(target, options=options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=options)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the server can be reached.

        Raises: CallError when it cannot.
        """
        try:
            grpc.channel_ready_future(self.channel).result(timeout=timeout_s)
        except grpc.FutureTimeoutError:
            raise CallError("UNAVAILABLE", f"not reachable within {timeout_s:g} s", self.target) from None

    def _call(self, method: Callable[..., _Reply], request: object) -> _Reply:
        try:
            return method(request, timeout=self.timeout_s)
        except grpc.RpcError as error:
            details = error.details() or ""
            if details.startswith("failed to connect"):  # gRPC's own words: nobody answered
                details += "; start `recsys serve` there, or name the HOST:PORT of a running server"
            elif details == "Deadline Exceeded":
                details = f"no answer within {self.timeout_s:g} s; wait longer, or look at the server's load"
            sent = (entry.value for entry in error.trailing_metadata() or () if entry.key == _REQUEST_ID_KEY)
            request_id = str(next(sent, ""))
            raise CallError(error.code().name, details, self.target, request_id) from error


class RecsysClient(_Connection):
    """Talks to RankingService.

    Raises: CallError, with the status and, for a wrong request, the field; RequestError, before anything is
    sent, for a field that a request does not have or whose value is of another type.
    """

    def __init__(
        self,
        target: str,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        super().__init__(target, timeout_s, credentials)
        self._stub = ranking_pb2_grpc.RankingServiceStub(self.channel)

    def recommend(self, user_id: str, page_size: int = 0, *, seed_item_id: str = "", **more: Any) -> Answer:
        """Request a ranked list; `more` are fields of RecommendRequest, as plain values."""
        fields = {
            "user_id": user_id,
            "page_size": page_size,
            "seed_item_id": seed_item_id,
            **with_messages(more),
        }
        request = new_message(pb.RecommendRequest, fields)
        return read_answer(self._call(self._stub.Recommend, request))

    def rank(self, user_id: str, item_ids: Iterable[str], page_size: int = 0, **more: Any) -> Answer:
        """Request a ranking of the given candidates."""
        fields = {"user_id": user_id, "item_ids": item_ids, "page_size": page_size, **with_messages(more)}
        request = new_message(pb.RankRequest, fields)
        return read_answer(self._call(self._stub.Rank, request))

    def record_feedback(self, events: Sequence[Feedback], *, validate_only: bool = False) -> FeedbackReport:
        """Record feedback."""
        request = pb.RecordFeedbackRequest(
            events=[event_message(e) for e in events], validate_only=validate_only
        )
        reply = self._call(self._stub.RecordFeedback, request)
        rejected = {
            r.feedback_id: r.reason for r in reply.results if r.status == pb.FeedbackResult.STATUS_REJECTED
        }
        return FeedbackReport(
            num_accepted=reply.num_accepted,
            num_duplicate=reply.num_duplicate,
            rejected=rejected,
            degradation=tuple(reply.degradation.reasons),
        )

    def upsert_items(self, items: Sequence[ItemUpdate], update_mask: Sequence[str] = ()) -> dict[str, str]:
        """Add or change items; return item_id -> reason of the rejected ones."""
        mask = new_message(FieldMask, {"paths": update_mask})
        request = pb.UpsertItemsRequest(items=[item_message(i) for i in items], update_mask=mask)
        reply = self._call(self._stub.UpsertItems, request)
        return {r.item_id: r.rejection for r in reply.results if r.rejection}


class AdminClient(_Connection):
    """Talks to AdminService, on the admin port."""

    def __init__(
        self, target: str, timeout_s: float = 60.0, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        super().__init__(target, timeout_s, credentials)
        self._stub = admin_pb2_grpc.AdminServiceStub(self.channel)

    def versions(self) -> list[str]:
        """List versions, newest first."""
        reply = self._call(self._stub.ListVersions, admin_pb2.ListVersionsRequest())
        return [version.version for version in reply.versions]

    def activate(self, version: str, expected_current: str | None = None) -> bool:
        """Make a version live if the expected one is live; return whether the server already uses it."""
        request = admin_pb2.ActivateRequest(version=version, expected_current=expected_current)
        return self._call(self._stub.Activate, request).serving

    def rollback(self) -> str:
        """Make the version before the live one live; return it."""
        return self._call(self._stub.Rollback, admin_pb2.RollbackRequest()).version

    def status(self) -> ServerStatus:
        """Request the server's status."""
        return read_status(self._call(self._stub.GetStatus, admin_pb2.GetStatusRequest()))
