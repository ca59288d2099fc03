"""Calls go on to a sibling worker that has fewer: connections are shared out among workers by chance.

    caller ─▶ worker 0, busy ─▶ unix socket of worker 1 ─▶ its queue, guard and service ─▶ the same way back

A caller's few connections may all belong to one worker, whose calls would then wait behind each other while
its siblings have nothing to do. A call goes on at most once, as bytes: nobody parses it on the way. The
sibling counts, logs and journals it as its own. Where it cannot be reached, the call is answered here.

The sockets lie in a folder of the parent's that only this user may enter.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc

from serving.call_log import REQUEST_ID_KEY
from serving.call_queue import CallQueue, on_pool, time_left
from serving.stats import RANKING
from serving.stats_board import StatsBoard

HANDED_OVER_KEY: Final = "recsys-handed-over"
"""Of the metadata of a call that comes from a sibling."""
MAX_AWAY: Final = 32
"""Calls of one worker that may be with siblings at a time."""
_OURS: Final = frozenset({HANDED_OVER_KEY, "user-agent"})
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)


class HandOver:
    """Chooses for each ranking call of one worker whether a sibling answers it; for many threads.

    Args: board: of all workers; own: this one's number; folder: of the sockets.
    """

    def __init__(self, board: StatsBoard, own: int, folder: Path) -> None:
        self._board, self._own, self._folder = board, own, folder
        self._lock = threading.Lock()
        self._away = [0] * board.num_workers
        """Calls that are with each sibling."""
        self._channels: dict[int, grpc.Channel] = {}
        self._pool = ThreadPoolExecutor(MAX_AWAY, "hand-over")

    @property
    def address(self) -> str:
        """Return where this worker listens for its siblings, as gRPC writes it."""
        return self._address(self._own)

    def _address(self, worker: int) -> str:
        return f"unix:{self._folder / str(worker)}"

    def close(self) -> None:
        """Close the connections to the siblings, when no call is away any more."""
        self._pool.shutdown()
        for channel in self._channels.values():
            channel.close()

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
        with self._lock:
            self._away[sibling] += 1

        def run(sent: bytes, context: grpc.ServicerContext) -> Any:
            try:
                return self._asked(details.method, sibling, sent, context)
            except _UnreachableError:
                answer = queue.submit(handler.unary_unary, sent, context).result()
                return handler.response_serializer(answer)
            finally:
                with self._lock:
                    self._away[sibling] -= 1

        return grpc.unary_unary_rpc_method_handler(on_pool(run, self._pool))

    def _less_busy(self, num_pending: int) -> int | None:
        """Return the sibling with the fewest calls, if it has fewer than this worker."""
        pending = self._board.pending()
        with self._lock:
            if sum(self._away) >= MAX_AWAY:
                return None
            # Those on their way are not counted there yet; those that are there are counted twice.
            counts = {n: max(count, self._away[n]) for n, count in pending.items() if n != self._own}
        sibling = min(counts, key=counts.__getitem__, default=None)
        return sibling if sibling is not None and counts[sibling] < num_pending else None

    def _asked(self, method: str, sibling: int, sent: bytes, context: grpc.ServicerContext) -> bytes:
        """Give a sibling's answer, or end the call as it does.

        Raises: _UnreachableError when it does not answer at all.
        """
        ask: Any = self._channel(sibling).unary_unary(method)  # bytes to bytes
        call = ask.future(sent, timeout=time_left(context), metadata=_metadata(context))
        context.add_callback(call.cancel)  # a caller that gives up waits for nobody there, either
        try:
            answer: bytes = call.result()
            return answer
        except grpc.FutureCancelledError:
            context.abort(grpc.StatusCode.CANCELLED, "the caller gave up")
        except grpc.RpcError as error:
            sent_back: Any = error.trailing_metadata()
            trailing = tuple((key, value) for key, value in sent_back or ())
            if error.code() is grpc.StatusCode.UNAVAILABLE and not _answered(trailing):
                raise _UnreachableError from error
            context.set_trailing_metadata(trailing)
            context.abort(error.code(), error.details() or "")
        raise AssertionError("gRPC's abort raises")

    def _channel(self, sibling: int) -> grpc.Channel:
        with self._lock:
            channel = self._channels.get(sibling)
            if channel is None:
                channel = grpc.insecure_channel(self._address(sibling), options=_OPTIONS)
                self._channels[sibling] = channel
            return channel


class _UnreachableError(Exception):
    """A sibling has ended, or has not started to listen."""


def _metadata(context: grpc.ServicerContext) -> tuple[tuple[str, str | bytes], ...]:
    sent = ((key, value) for key, value in context.invocation_metadata() if key not in _OURS)
    return (*sent, (HANDED_OVER_KEY, "1"))


def _answered(trailing: Sequence[Any]) -> bool:
    """Tell whether a service ended the call: it says which request that was."""
    return any(key == REQUEST_ID_KEY for key, _ in trailing)
