"""gRPC interceptors of every call: admission, deadline, and the table from error classes to gRPC statuses.

`Admission` runs on gRPC's own thread, before a call waits for a worker. When too many calls wait, it refuses
the call at once and says after which time to retry. `Guard` runs on the worker: it drops a call whose
deadline has passed, and turns every error into a status.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NoReturn

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from recsys.errors import BundleError, JournalError, RecsysError, RegistryError, RequestError, StoreError
from serving.request import ExpiredError, FieldError, OverloadedError, VersionError
from serving.stats import ServerStats

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
_HEALTH = "/grpc.health."
# gRPC runs a behavior on the pool in this attribute; its own health service does so for its Watch.
_POOL = "experimental_thread_pool"
# Characters. A header takes up to 12 bytes for one, and details repeat the text twice in base 64.
_MAX_TEXT = 400
RETRY_KEY = "grpc-retry-pushback-ms"
DETAILS_KEY = "grpc-status-details-bin"
_log = structlog.get_logger(__name__)

Behavior = Callable[[Any, grpc.ServicerContext], Any]


class CountingPool(ThreadPoolExecutor):
    """A thread pool that counts its unfinished calls."""

    def __init__(self, max_workers: int, name: str) -> None:
        super().__init__(max_workers=max_workers, thread_name_prefix=name)
        self._count_lock = threading.Lock()
        self.num_pending = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run a call when a worker is free."""
        with self._count_lock:
            self.num_pending += 1
        return super().submit(self._counted, fn, *args, **kwargs)

    def _counted(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            with self._count_lock:
                self.num_pending -= 1


class Admission(grpc.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Refuses calls while too many are unfinished; health checks always pass."""

    def __init__(self, pool: CountingPool, max_pending: int, stats: ServerStats) -> None:
        self._pool = pool
        self._max_pending = max_pending
        self._stats = stats
        # Refusals have a thread of their own: they must not wait behind the calls that cause them.
        self._refusals = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refuse")

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Admit a call, or answer RESOURCE_EXHAUSTED."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or handler_call_details.method.startswith(_HEALTH):
            return handler
        pool = getattr(handler.unary_unary, _POOL, self._pool)
        if pool.num_pending < self._max_pending:
            return handler
        self._stats.shed()
        return grpc.unary_unary_rpc_method_handler(self._refusal())

    def _refusal(self) -> Behavior:
        def refuse(_: Any, context: grpc.ServicerContext) -> None:
            abort(context, OverloadedError(f"{self._max_pending} calls are waiting; retry later"))

        setattr(refuse, _POOL, self._refusals)
        return refuse


class Guard(grpc.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Turns errors into statuses, counts calls, and drops calls whose deadline has passed.

    Args: pools: method -> the pool that its calls run on; others run on the server's.
    """

    def __init__(self, stats: ServerStats, pools: Mapping[str, CountingPool] | None = None) -> None:
        self._stats = stats
        self._pools = pools or {}

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap the call's behavior in the guard."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or handler_call_details.method.startswith(_HEALTH):
            return handler
        method = handler_call_details.method.rsplit("/", 1)[-1]
        guarded = self._guarded(handler.unary_unary, method)
        if method in self._pools:
            setattr(guarded, _POOL, self._pools[method])
        return grpc.unary_unary_rpc_method_handler(
            guarded,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _guarded(self, behavior: Behavior, method: str) -> Behavior:
        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            start = time.perf_counter()
            status = grpc.StatusCode.OK
            try:
                self._refuse_expired(context)
                return behavior(request, context)
            except RecsysError as error:
                status = status_of(error)
                if status in _CONSTANT_TEXT:
                    _log.error("call_failed", method=method, status=status.name, error=str(error))
                abort(context, error)
            except Exception as error:
                status = grpc.StatusCode.INTERNAL
                _log.exception("call_failed", method=method, status=status.name)
                abort(context, error)
            finally:
                self._stats.answered(method, status.name, time.perf_counter() - start)

        return guarded

    def _refuse_expired(self, context: grpc.ServicerContext) -> None:
        if not is_waiting(context):
            self._stats.expired()
            raise ExpiredError("the deadline passed while the call was waiting")


def is_waiting(context: grpc.ServicerContext) -> bool:
    """Tell whether a call was not cancelled and its deadline has not passed."""
    remaining_s = context.time_remaining()
    return bool(context.is_active()) and (remaining_s is None or remaining_s > 0.0)


def on_pool(behavior: Behavior, pool: ThreadPoolExecutor) -> Behavior:
    """Make gRPC run a behavior on this pool, so that it does not wait behind other calls for a worker."""

    def run(request: Any, context: grpc.ServicerContext) -> Any:
        return behavior(request, context)

    setattr(run, _POOL, pool)
    return run


def status_of(error: Exception) -> grpc.StatusCode:
    """Return an error's status from the table."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


def abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """End the call with an error's status, details and retry advice."""
    code = status_of(error)
    message = _bounded(_CONSTANT_TEXT.get(code, str(error)))
    metadata: list[tuple[str, str | bytes]] = []
    if isinstance(error, OverloadedError):
        metadata.append((RETRY_KEY, str(error.retry_after_ms)))
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
