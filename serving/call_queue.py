"""The queue before the workers: bounded by a count and by time, and refusals that cost next to nothing.

call -> Admission, on gRPC's thread: the queue is full, or too long to wait in -> refused, no byte is read
     -> CallQueue, first in first out
     -> worker, Guard (serving.interceptors): nobody waits, or it is too old -> refused, no byte is parsed

A call is let in when the calls before it leave it half of its time. Then first in, first out answers every
one of them in time. The last one first would help only where calls wait longer than they may, and would let
down the callers that have waited longest.
"""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc

from serving.call_log import REQUEST_ID_KEY, Call, CallLog
from serving.latency import MovingAverage, Patience
from serving.request import OverloadedError
from serving.stats import ServerStats

# Of the time that callers give a call, so much may pass before a worker takes it.
_WAIT_SHARE = 0.5
# A call that has spent more of its time in the queue is refused: the queue is late, and drops what is old to
# catch up.
_AGE_SHARE = 0.75
HEALTH = "/grpc.health."
# gRPC runs a behavior on the pool in this attribute; its own health service does so for its Watch.
_POOL = "experimental_thread_pool"
RETRY_KEY = "grpc-retry-pushback-ms"
_NEVER = "-1"
_REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED
Behavior = Callable[[Any, grpc.ServicerContext], Any]


class CallQueue(ThreadPoolExecutor):
    """A thread pool that knows its unfinished calls, and how long one more call would wait.

    Args: max_pending: calls that may be unfinished, those being answered included; default_deadline_s: the
    time of a call whose caller gives none; show: gets the number of unfinished calls when it changes.
    """

    def __init__(
        self,
        max_workers: int,
        name: str,
        max_pending: int,
        default_deadline_s: float,
        show: Callable[[int], None] = lambda _: None,
    ) -> None:
        super().__init__(max_workers=max_workers, thread_name_prefix=name)
        self._show = show
        self.num_workers = max_workers
        self.num_pending = 0
        self._max_pending = max_pending
        self._count_lock = threading.Lock()
        self._busy_s = MovingAverage()
        self._patience = Patience(default_deadline_s)
        self._own = threading.local()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run a call when a worker is free."""
        self._count(1)
        return super().submit(self._counted, time.monotonic(), fn, *args, **kwargs)

    def has_room(self) -> bool:
        """Tell whether one more call may wait."""
        if self.num_pending >= self._max_pending:
            return False
        num_before = self.num_pending - self.num_workers + 1
        if num_before <= 0:  # a worker is free
            return True
        busy_s, patience_s = self._busy_s.value, self._patience.seconds
        wait_s = num_before * busy_s / self.num_workers
        # One may wait for longer where it can still be answered, so that a worker has the next call at hand.
        return wait_s <= _WAIT_SHARE * patience_s or (num_before == 1 and wait_s + busy_s <= patience_s)

    def waited_s(self) -> float:
        """Return how long the call that this thread answers had waited for it."""
        waited: float = getattr(self._own, "waited_s", 0.0)
        return waited

    def is_late(self, remaining_s: float | None) -> bool:
        """Tell whether this thread's call waited too long. Args: remaining_s: None: it has no deadline."""
        waited_s = self.waited_s()
        self.learn(remaining_s, waited_s)
        return remaining_s is not None and waited_s > _AGE_SHARE * (waited_s + remaining_s)

    def learn(self, remaining_s: float | None, waited_s: float = 0.0) -> None:
        """Learn how much time a caller gave a call, unless that has passed: then nobody knows."""
        if remaining_s is None or remaining_s > 0.0:
            self._patience.observe(None if remaining_s is None else waited_s + remaining_s)

    def _counted(self, queued_at: float, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        self._own.waited_s = start - queued_at
        try:
            return fn(*args, **kwargs)
        finally:
            self._busy_s.observe(time.monotonic() - start)
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._count_lock:
            self.num_pending += change
            self._show(self.num_pending)


class Admission(grpc.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Refuses calls that would wait too long; health checks always pass.

    Args: queue: of all methods that name no pool of their own; call_log: gets the refused calls; hand_over:
    (a call's details, its handler, its queue) -> the handler of a sibling worker, which is asked first.
    """

    def __init__(
        self,
        queue: CallQueue,
        stats: ServerStats,
        call_log: CallLog,
        hand_over: Callable[[Any, Any, CallQueue], Any] = lambda *_: None,
    ) -> None:
        self._queue = queue
        self._hand_over = hand_over
        self._stats = stats
        self._call_log = call_log

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Admit a call, or answer RESOURCE_EXHAUSTED."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or handler_call_details.method.startswith(HEALTH):
            return handler
        queue = getattr(handler.unary_unary, _POOL, self._queue)
        elsewhere = self._hand_over(handler_call_details, handler, queue)
        if elsewhere is not None:
            return elsewhere
        if queue.has_room():
            return handler
        call, status = Call(method=handler_call_details.method.rsplit("/", 1)[-1]), _REFUSED.name
        self._stats.shed()
        self._stats.answered(call.method, status, 0.0)
        self._call_log.finished(call, status, 0.0)
        return _refusal(queue, call.request_id)


def _refusal(queue: CallQueue, request_id: str) -> Any:
    """Make a handler that refuses a call on gRPC's own thread.

    It is said to take a stream, so gRPC reads no request for it: that saves a worker and two changes of
    thread, and the refused caller waits behind nobody.
    """

    def refuse(_: Any, context: grpc.ServicerContext) -> None:
        remaining_s = time_left(context)
        queue.learn(remaining_s)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id), (RETRY_KEY, pushback_ms(remaining_s))))
        context.abort(_REFUSED, "too many calls are waiting; retry later")

    return grpc.stream_unary_rpc_method_handler(on_pool(refuse, _AT_ONCE))


class _AtOnce(ThreadPoolExecutor):
    """A pool without threads: it runs a call where it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


_AT_ONCE = _AtOnce(max_workers=1)


def on_pool(behavior: Behavior, pool: ThreadPoolExecutor) -> Behavior:
    """Make gRPC run a behavior on this pool, so that it does not wait behind other calls for a worker."""

    def run(request: Any, context: grpc.ServicerContext) -> Any:
        return behavior(request, context)

    setattr(run, _POOL, pool)
    return run


def time_left(context: grpc.ServicerContext) -> float | None:
    """Return the seconds until a call's deadline, 0 when it has passed; None: it has no deadline."""
    remaining_s = context.time_remaining()
    return None if remaining_s is None or remaining_s > _A_YEAR_S else remaining_s


_A_YEAR_S = 365 * 86_400.0  # gRPC reports "no deadline" as one in the far future


def pushback_ms(remaining_s: float | None) -> str:
    """Return the metadata value that says when to retry, a little different for each caller.

    "-1" (do not) for a caller whose deadline comes before: it learns at once that there is no answer.
    """
    after_ms = int(OverloadedError.retry_after_ms * random.uniform(0.5, 1.5))
    return _NEVER if remaining_s is not None and 1000 * remaining_s <= after_ms else str(after_ms)
