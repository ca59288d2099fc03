"""The guard of every call, on its worker: lateness, parsing, and the table from errors to gRPC statuses.

gRPC hands over bytes. What the guard refuses is not parsed; bytes that are no message are INVALID_ARGUMENT.
"""

import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from recsys.errors import BundleError, JournalError, RegistryError, RequestError, StoreError
from serving.call_log import REQUEST_ID_KEY, CallLog, begin_call
from serving.call_queue import HEALTH, RETRY_KEY, Behavior, CallQueue, on_pool, pushback_ms, time_left
from serving.request import ExpiredError, FieldError, OverloadedError, VersionError, new_request_id
from serving.stats import RANKING, ServerStats

# The first class that fits an error decides. Statuses of _CONSTANT_TEXT hide the error's text from the
# caller.
STATUS: Final[tuple[tuple[type[Exception], grpc.StatusCode], ...]] = (
    (FieldError, grpc.StatusCode.INVALID_ARGUMENT),
    (VersionError, grpc.StatusCode.FAILED_PRECONDITION),
    (RequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (RegistryError, grpc.StatusCode.FAILED_PRECONDITION),
    (BundleError, grpc.StatusCode.FAILED_PRECONDITION),
    (OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ExpiredError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (JournalError, grpc.StatusCode.UNAVAILABLE),
    (StoreError, grpc.StatusCode.UNAVAILABLE),
    (Exception, grpc.StatusCode.INTERNAL),
)
_CONSTANT_TEXT: Final[dict[grpc.StatusCode, str]] = {
    grpc.StatusCode.UNAVAILABLE: "the server cannot write at the moment; nothing was recorded, try again",
    grpc.StatusCode.INTERNAL: "internal error; the server's log has the details",
}
# Characters. A header takes up to 12 bytes for one, and details repeat the text twice in base 64.
_MAX_TEXT = 400
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
DETAILS_KEY = "grpc-status-details-bin"


class Guard(grpc.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Drops calls that came to a worker too late, parses the others, and turns errors into statuses.

    Args: call_log: gets every call that ends; queue: of the server's calls; queues: method -> the queue of
    its own that its calls wait in.
    """

    def __init__(
        self,
        stats: ServerStats,
        call_log: CallLog,
        queue: CallQueue,
        queues: Mapping[str, CallQueue] | None = None,
    ) -> None:
        self._stats = stats
        self._call_log = call_log
        self._queue = queue
        self._queues = queues or {}
        self._handlers: dict[str, Any] = {}

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the method's handler with the guard around it, made once."""
        path = handler_call_details.method
        if path not in self._handlers:
            handler = continuation(handler_call_details)
            if handler is None:
                return None
            self._handlers[path] = self._with_guard(handler, path)
        return self._handlers[path]

    def _with_guard(self, handler: Any, path: str) -> Any:
        if handler.unary_unary is None or path.startswith(HEALTH):
            return _parsing(handler)
        method = path.rsplit("/", 1)[-1]
        queue = self._queues.get(method, self._queue)
        guarded = self._guarded(handler.unary_unary, handler.request_deserializer, method, queue)
        return grpc.unary_unary_rpc_method_handler(
            on_pool(guarded, queue), response_serializer=handler.response_serializer
        )

    def _guarded(
        self, behavior: Behavior, parse: Callable[[bytes], Any], method: str, queue: CallQueue
    ) -> Behavior:
        def guarded(sent: bytes, context: grpc.ServicerContext) -> Any:
            start = time.perf_counter()
            call, failure = begin_call(method), None
            if method in RANKING:
                self._stats.staged({"queue_wait": queue.waited_s()})
            try:
                self._refuse_late(context, queue)
                return behavior(_parsed(sent, parse), context)
            except Exception as error:
                failure = error
                if isinstance(error, OverloadedError):
                    self._stats.shed()
                if isinstance(error, ExpiredError):
                    self._stats.expired()
                abort(context, error, call.request_id)
            finally:
                seconds = time.perf_counter() - start
                status = "OK" if failure is None else status_of(failure).name
                self._stats.answered(method, status, seconds)
                self._call_log.finished(call, status, seconds, failure)

        return guarded

    def _refuse_late(self, context: grpc.ServicerContext, queue: CallQueue) -> None:
        if not is_waiting(context):
            raise ExpiredError("the deadline passed while the call was waiting")
        if queue.is_late(time_left(context)):
            raise OverloadedError("the call waited for most of its time; allow a longer deadline")


def _parsing(handler: Any) -> Any:
    """Wrap a handler of gRPC's own health or reflection service: it refuses other bytes as the guard does."""
    parse = handler.request_deserializer
    kind = next(name for name in _KINDS if getattr(handler, name) is not None)
    behavior = getattr(handler, kind)

    def read(sent: bytes, context: grpc.ServicerContext) -> Any:
        try:
            return _parsed(sent, parse)
        except RequestError as error:
            abort(context, error, new_request_id())

    @wraps(behavior)  # with the attributes that say how gRPC runs it
    def run(sent: Any, context: grpc.ServicerContext, *more: Any) -> Any:
        streamed = handler.request_streaming
        request = (read(one, context) for one in sent) if streamed else read(sent, context)
        return behavior(request, context, *more)

    return handler._replace(request_deserializer=None, **{kind: run})


def _parsed(sent: bytes, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(sent)
    except DecodeError as error:
        raise RequestError(
            f"the {len(sent)} bytes are no request of this method; send the message that its proto names"
        ) from error


def is_waiting(context: grpc.ServicerContext) -> bool:
    """Tell whether a call was not cancelled and its deadline has not passed."""
    remaining_s = context.time_remaining()
    return bool(context.is_active()) and (remaining_s is None or remaining_s > 0.0)


def status_of(error: Exception) -> grpc.StatusCode:
    """Return an error's status from the table."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


def abort(context: grpc.ServicerContext, error: Exception, request_id: str) -> NoReturn:
    """End the call with an error's status, details, request id and retry advice."""
    code = status_of(error)
    message = _bounded(_CONSTANT_TEXT.get(code, str(error)))
    metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID_KEY, request_id)]
    if isinstance(error, OverloadedError):
        metadata.append((RETRY_KEY, pushback_ms(time_left(context))))
    if isinstance(error, FieldError):
        metadata.append((DETAILS_KEY, _details(error, message)))
    context.set_trailing_metadata(tuple(metadata))
    context.abort(code, message)


def _bounded(text: str) -> str:
    """Cut a text: gRPC sends it as a header, and a client that gets more than 8 kB of them sees no status."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def _details(error: FieldError, message: str) -> bytes:
    """Return a google.rpc.Status with BadRequest details, which gRPC libraries of all languages read."""
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=_bounded(error.field), description=_bounded(error.problem)
    )
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=message, details=[packed])
    return bytes(status.SerializeToString())
