"""A typed gRPC client with deadlines and retries; it takes and returns plain values.

with RecsysClient("127.0.0.1:50051") as client:
    answer = client.recommend("user-7", page_size=10, context={"device": "mobile"})
    client.record_feedback([Feedback.of(answer.items[0], "user-7", "click")])
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from protos.recsys.v1 import admin_pb2, admin_pb2_grpc, ranking_pb2_grpc
from protos.recsys.v1 import ranking_pb2 as pb
from recsys.errors import RequestError
from serving.addresses import is_loopback
from serving.client_values import (
    Answer,
    CallError,
    Feedback,
    FeedbackReport,
    Item,
    ItemUpdate,
    ServerStatus,
    Worker,
)
from serving.explanation import HistoryEvent, ItemExplanation, SimilarItem

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
_Message = TypeVar("_Message", bound=Message)
_KINDS: Mapping[int, str] = {
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_INT32: "a whole number of 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of 64 bits",
    FieldDescriptor.CPPTYPE_UINT64: "a whole number of 64 bits, 0 or more",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_BOOL: "True or False",
}
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
        fields = {"user_id": user_id, "page_size": page_size, "seed_item_id": seed_item_id, **_plain(more)}
        request = _message(pb.RecommendRequest, fields)
        return _answer(self._call(self._stub.Recommend, request))

    def rank(self, user_id: str, item_ids: Iterable[str], page_size: int = 0, **more: Any) -> Answer:
        """Request a ranking of the given candidates."""
        fields = {"user_id": user_id, "item_ids": item_ids, "page_size": page_size, **_plain(more)}
        request = _message(pb.RankRequest, fields)
        return _answer(self._call(self._stub.Rank, request))

    def record_feedback(self, events: Sequence[Feedback], *, validate_only: bool = False) -> FeedbackReport:
        """Record feedback."""
        request = pb.RecordFeedbackRequest(events=[_event(e) for e in events], validate_only=validate_only)
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
        mask = _message(FieldMask, {"paths": update_mask})
        request = pb.UpsertItemsRequest(items=[_item(i) for i in items], update_mask=mask)
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
        reply = self._call(self._stub.GetStatus, admin_pb2.GetStatusRequest())
        return ServerStatus(
            server_id=reply.server_id,
            bundle_version=reply.bundle_version,
            current_version=reply.current_version,
            reload_error=reply.reload_error,
            degradation=tuple(reply.degradation),
            calls=dict(reply.calls),
            num_expired=reply.num_expired,
            num_shed=reply.num_shed,
            latency_ms=dict(reply.latency_ms),
            now=reply.now.ToDatetime(tzinfo=UTC),
            device=reply.device,
            index_device=reply.index_device,
            stages_ms={
                stage: {"p50": found.p50_ms, "p99": found.p99_ms} for stage, found in reply.stages.items()
            },
            index_kind=reply.index_kind,
            engine=reply.engine,
            store=dict(reply.store),
            num_impressions=reply.num_impressions,
            num_lists=reply.num_lists,
            num_explored_lists=reply.num_explored_lists,
            degraded_answers=dict(reply.degraded_answers),
            workers=tuple(_worker(worker) for worker in reply.workers),
        )


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Convert plain context values and nested dicts to proto messages."""
    given = dict(fields)
    if given.get("context") is not None:
        given["context"] = _values("context", given["context"])
    if isinstance(given.get("filter"), Mapping):
        given["filter"] = _message(pb.Filter, given["filter"])
    if isinstance(given.get("debug"), Mapping):
        given["debug"] = _message(pb.Debug, given["debug"])
    if "pins" in given and isinstance(given["pins"], Mapping):
        given["pins"] = [pb.Pin(position=position, item_id=item) for position, item in given["pins"].items()]
    return given


def _values(field: str, given: Mapping[str, str | float]) -> dict[str, pb.ContextValue]:
    if not isinstance(given, Mapping):
        raise _wrong(field, given, "a dict of text to text or a number")
    return {name: _value(f"{field}[{name!r}]", value) for name, value in given.items()}


def _value(field: str, value: str | float) -> pb.ContextValue:
    try:
        return pb.ContextValue(text=value) if isinstance(value, str) else pb.ContextValue(number=value)
    except (TypeError, ValueError) as error:
        raise _wrong(field, value, "text or a number") from error


def _message(kind: type[_Message], fields: Mapping[str, Any]) -> _Message:
    """Make a message.

    Raises: RequestError for a field that it does not have, with those it has, or for a value of another type:
    protobuf's own errors name neither the field nor the value.
    """
    known = kind.DESCRIPTOR.fields_by_name
    given = dict(fields)
    for name, value in fields.items():
        if name not in known:
            raise RequestError(
                f"{kind.DESCRIPTOR.name} has no field {name!r}; its fields are: {', '.join(known)}"
            )
        if known[name].is_repeated and not isinstance(value, Mapping | None):
            # Text is a list of letters to protobuf.
            if isinstance(value, str | bytes) or not isinstance(value, Iterable):
                raise _wrong(f"{kind.DESCRIPTOR.name}.{name}", value, _expected(known[name]))
            given[name] = list(value)
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        for name, value in given.items():
            if not _fits(kind, name, value):
                raise _wrong(f"{kind.DESCRIPTOR.name}.{name}", value, _expected(known[name])) from error
        raise


def _fits(kind: type[Message], name: str, value: object) -> bool:
    try:
        kind(**{name: value})
    except (TypeError, ValueError):
        return False
    return True


def _wrong(field: str, value: object, expected: str) -> RequestError:
    return RequestError(f"{field} is {repr(value)[:80]} ({type(value).__name__}); give {expected}")


def _expected(field: Any) -> str:
    """Say what a field takes, given its descriptor (protobuf has two classes of them)."""
    message = field.message_type
    if message is None:
        one = _KINDS[field.cpp_type]
    elif message.GetOptions().map_entry:
        return f"a dict of text to {_expected(message.fields_by_name['value'])}"
    else:
        one = f"{message.name} ({', '.join(message.fields_by_name)})"
    return f"a list of {one}" if field.is_repeated else one


def _answer(reply: pb.RecommendResponse | pb.RankResponse) -> Answer:
    explained = reply.HasField("explanation")
    return Answer(
        items=tuple(
            Item(
                item_id=r.item_id,
                title=r.title,
                position=r.position,
                score=r.score,
                predictions=dict(r.predictions),
                sources=tuple(r.sources),
                reasons=tuple(r.reasons),
                propensity=r.propensity,
                propensity_kind=r.propensity_kind,
                impression_id=r.impression_id,
                explanation=_item_explanation(r.explanation) if r.HasField("explanation") else None,
            )
            for r in reply.results
        ),
        request_id=reply.request_id,
        list_id=reply.list_id,
        bundle_version=reply.bundle_version,
        next_page_token=reply.next_page_token,
        degradation=tuple(reply.degradation.reasons),
        missing_item_ids=tuple(reply.missing_item_ids),
        server_s=reply.server_time.ToNanoseconds() / 1e9,
        seed=reply.explanation.seed if explained else None,
        explored=reply.explanation.explored if explained else None,
        num_candidates=dict(reply.explanation.num_candidates),
        stage_ms=dict(reply.explanation.stage_ms),
        known_user=reply.explanation.known_user if explained else None,
        history=tuple(
            HistoryEvent(item_id=e.item_id, kind=e.kind, age_s=e.age.ToNanoseconds() / 1e9)
            for e in reply.explanation.history
        ),
        formula=reply.explanation.formula,
        weights=dict(reply.explanation.weights),
    )


def _item_explanation(explained: pb.ItemExplanation) -> ItemExplanation:
    return ItemExplanation(
        contributions=dict(explained.contributions),
        nearest=tuple(
            SimilarItem(item_id=one.item_id, title=one.title, kind=one.kind, cosine=one.cosine)
            for one in explained.nearest
        ),
        gates={task: tuple(gate.weights) for task, gate in explained.gates.items()},
    )


def _worker(worker: admin_pb2.WorkerStatus) -> Worker:
    return Worker(
        number=worker.number,
        state=worker.state,
        num_restarts=worker.num_restarts,
        server_id=worker.server_id,
        pid=worker.pid,
        bundle_version=worker.bundle_version,
        loaded_versions=tuple(worker.loaded_versions),
        reload_error=worker.reload_error,
        journal_healthy=worker.journal_healthy,
        device=worker.device,
        engine=worker.engine,
    )


def _event(event: Feedback) -> pb.FeedbackEvent:
    fields = _fields("event", event, Feedback)
    return _message(pb.FeedbackEvent, {**fields, "occurred_at": _timestamp("occurred_at", event.occurred_at)})


def _item(item: ItemUpdate) -> pb.Item:
    fields = _fields("item", item, ItemUpdate)
    converted = {
        "available_from": _timestamp("available_from", item.available_from),
        "available_until": _timestamp("available_until", item.available_until),
        "attributes": _values("attributes", item.attributes),
    }
    return _message(pb.Item, {**fields, **converted})


def _fields(what: str, given: object, kind: type[Feedback | ItemUpdate]) -> dict[str, Any]:
    if not isinstance(given, kind):
        raise _wrong(what, given, f"values of {kind.__name__}, from serving.client_values")
    return {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}


def _timestamp(field: str, instant: datetime | None) -> Timestamp | None:
    if instant is None:
        return None
    if not isinstance(instant, datetime):
        raise _wrong(field, instant, "a datetime")
    stamp = Timestamp()
    stamp.FromDatetime(instant)
    return stamp
