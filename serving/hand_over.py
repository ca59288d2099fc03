"""Calls go on to a sibling worker that has fewer: connections are shared out among workers by chance.

    caller ─▶ worker 0, busy ─▶ unix socket of worker 1 ─▶ its queue, guard and service ─▶ the same way back

A caller's few connections may all belong to one worker, whose calls would then wait behind each other while
its siblings have nothing to do. A call goes on at most once, as bytes: nobody parses it on the way. The
sibling logs and journals it as its own. Where the sibling has ended the call is answered here; if that was in
the middle of the call, its list may be in the journal twice, under two request ids.

An upsert reaches the siblings a moment later (`serving.journal_tail`), so the next call of its caller may be
answered without it for that long, as on a connection of its own.

The sockets lie in a folder of the parent's that only this user may enter.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc

from serving.call_log import REQUEST_ID_KEY
from serving.call_queue import RETRY_KEY, CallQueue, on_pool, pushback_ms, time_left
from serving.stats import RANKING
from serving.stats_board import StatsBoard

HANDED_OVER_KEY: Final = "recsys-handed-over"
"""Of the metadata of a call that comes from a sibling."""
MAX_AWAY: Final = 32
"""Calls of one worker that may be with one sibling at a time."""
REST_S: Final = 5.0
"""A sibling that lets a call's time pass is not asked for so long."""
LATE_SHARE: Final = 0.9
"""Of a call's time: who gives up sees the end of it a moment before or after."""
_OURS: Final = frozenset({HANDED_OVER_KEY, "user-agent"})
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)


class Sibling(ThreadPoolExecutor):
    """Threads that wait for one sibling's answers, and the connection to it."""

    def __init__(self, address: str) -> None:
        super().__init__(MAX_AWAY, "hand-over")
        self.num_away = 0
        """Calls that are with it."""
        self.rests_until = 0.0
        """By `time.monotonic`."""
        self.channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._count_lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run a call; gRPC does so for each, also where nobody waits any more."""
        self._count(1)
        return super().submit(self._counted, fn, *args, **kwargs)

    def _counted(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._count_lock:
            self.num_away += change


class HandOver:
    """Chooses for each ranking call of one worker whether a sibling answers it; for many threads.

    Args: board: of all workers; own: this one's number; folder: of the sockets; default_deadline_s: the time
    of a call whose caller gives none; answered: called for each call that a sibling has answered.
    """

    def __init__(
        self,
        board: StatsBoard,
        own: int,
        folder: Path,
        default_deadline_s: float,
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        self._board, self._own, self._folder = board, own, folder
        self._default_deadline_s, self._answered = default_deadline_s, answered
        self._siblings = {n: Sibling(self._address(n)) for n in range(board.num_workers) if n != own}

    @property
    def address(self) -> str:
        """Return where this worker listens for its siblings, as gRPC writes it."""
        return self._address(self._own)

    def _address(self, worker: int) -> str:
        return f"unix:{self._folder / str(worker)}"

    def close(self) -> None:
        """Close the connections to the siblings; calls that are away end with them."""
        for sibling in self._siblings.values():
            sibling.channel.close()
        for sibling in self._siblings.values():
            sibling.shutdown()

    def handler(self, details: Any, handler: Any, queue: CallQueue) -> Any | None:
        """Make a handler that hands one call over; None: it is answered here.

        Args: details: of the call, as gRPC's interceptors get them; handler: the worker's own; queue: the one
        that the call would wait in.
        """
        if queue.num_pending == 0 or details.method.rsplit("/", 1)[-1] not in RANKING:
            return None
        if any(key == HANDED_OVER_KEY for key, _ in details.invocation_metadata):
            return None
        sibling = self._less_busy(queue.num_pending)
        if sibling is None:
            return None

        def run(sent: bytes, context: grpc.ServicerContext) -> Any:
            try:
                return self._asked(details.method, sibling, sent, context)
            except _UnreachableError:
                return _answered_here(sent, context, handler, queue)

        return grpc.unary_unary_rpc_method_handler(on_pool(run, sibling))

    def _less_busy(self, num_pending: int) -> Sibling | None:
        """Return the sibling with the fewest calls, if it has fewer than this worker."""
        pending, now = self._board.pending(), time.monotonic()
        found, fewest = None, num_pending
        for number, sibling in self._siblings.items():
            if number not in pending or sibling.num_away >= MAX_AWAY or now < sibling.rests_until:
                continue
            # Those on their way are not counted there yet; those that are there are counted twice.
            count = max(pending[number], sibling.num_away)
            if count < fewest:
                found, fewest = sibling, count
        return found

    def _asked(self, method: str, sibling: Sibling, sent: bytes, context: grpc.ServicerContext) -> bytes:
        """Give a sibling's answer, or end the call as it does.

        Raises: _UnreachableError when it does not answer at all.
        """
        remaining_s = time_left(context)
        timeout_s = self._default_deadline_s if remaining_s is None else remaining_s
        late_at = time.monotonic() + LATE_SHARE * timeout_s
        ask: Any = sibling.channel.unary_unary(method)  # bytes to bytes
        try:
            call = ask.future(sent, timeout=timeout_s, metadata=_metadata(context))
        except ValueError as error:  # closed: this worker stops
            raise _UnreachableError from error
        # A caller that gives up waits for nobody there, either; one that has done so gets no callback.
        if not context.add_callback(call.cancel):  # type: ignore[func-returns-value, arg-type, unused-ignore]
            call.cancel()
        try:
            answer: bytes = call.result()
        except (grpc.FutureCancelledError, grpc.RpcError) as error:
            if time.monotonic() >= late_at:
                sibling.rests_until = time.monotonic() + REST_S
            self._end(context, error)
        self._answered()
        return answer

    def _end(self, context: grpc.ServicerContext, error: Any) -> None:
        """End a call as a sibling ended it.

        Raises: _UnreachableError when it was not its service that did.
        """
        if isinstance(error, grpc.FutureCancelledError):
            context.abort(grpc.StatusCode.CANCELLED, "the caller gave up")
        trailing = tuple((key, value) for key, value in error.trailing_metadata() or ())
        if any(key == REQUEST_ID_KEY for key, _ in trailing):
            self._answered()
        elif error.code() is grpc.StatusCode.UNAVAILABLE:
            raise _UnreachableError from error
        context.set_trailing_metadata(trailing)
        context.abort(error.code(), error.details() or "")


class _UnreachableError(Exception):
    """A sibling has ended, or has not started to listen."""


def _answered_here(sent: bytes, context: grpc.ServicerContext, handler: Any, queue: CallQueue) -> Any:
    """Answer a call that came back, unless the queue is full by now."""
    if not queue.has_room():
        context.set_trailing_metadata(((RETRY_KEY, pushback_ms(time_left(context))),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls are waiting; retry later")
    return handler.response_serializer(queue.submit(handler.unary_unary, sent, context).result())


def _metadata(context: grpc.ServicerContext) -> Sequence[tuple[str, str | bytes]]:
    sent = ((key, value) for key, value in context.invocation_metadata() if key not in _OURS)
    return (*sent, (HANDED_OVER_KEY, "1"))
