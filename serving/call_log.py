"""A log line for each refused, failed or slow call, at a bounded rate, with the call's request id.

A call has its request id from its first instant on: it is in the answer, in the journal, in the log, and in
the trailing metadata of a call that fails. User ids are hashed with a key that stays in RUNS: who has the log
alone cannot try ids out.
"""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from recsys.errors import RecsysError
from serving.request import FieldError, new_request_id

REQUEST_ID_KEY = "recsys-request-id"
"""Of the trailing metadata of a call that fails."""
_LINES_PER_S = 10.0
_BURST = 50.0
_KEY_BYTES = 32
_MAX_TEXT = 400
_log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Call:
    """One call, as its log line names it."""

    method: str
    request_id: str = field(default_factory=new_request_id)
    user_id: str = ""
    """Set when the request has been read."""


_CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)


def begin_call(method: str) -> Call:
    """Begin a call on this thread."""
    call = Call(method=method)
    _CURRENT.set(call)
    return call


def current_call() -> Call:
    """Return this thread's call; a new one where none was begun."""
    return _CURRENT.get() or begin_call("")


class CallLog:
    """Writes the lines; safe to use from many threads.

    Args: version: the live version; slow_s: calls that take longer are logged; key: of the users' hashes.
    """

    def __init__(self, worker: int, version: Callable[[], str | None], slow_s: float, key: bytes) -> None:
        self._worker = worker
        self._version = version
        self._slow_s = slow_s
        self._key = key
        self._lock = threading.Lock()
        self._left, self._filled_s = _BURST, time.monotonic()
        self._num_left_out = 0

    def finished(self, call: Call, status: str, seconds: float, error: Exception | None = None) -> None:
        """Log a call if it was refused, failed or was slow."""
        if status == "OK" and seconds < self._slow_s:
            return
        left_out = self._take_line()
        if left_out is None:
            return
        fields: dict[str, object] = {
            "request_id": call.request_id,
            "method": call.method,
            "status": status,
            "ms": round(1000 * seconds, 3),
            "worker": self._worker,
            "version": self._version(),
        }
        if call.user_id:
            fields["user"] = self.hashed(call.user_id)
        if left_out:
            fields["lines_left_out"] = left_out
        self._write(status, fields, error)

    def hashed(self, user_id: str) -> str:
        """Return a user's name in the log."""
        return hashlib.blake2b(user_id.encode(), key=self._key, digest_size=8).hexdigest()

    def _write(self, status: str, fields: dict[str, object], error: Exception | None) -> None:
        if status == "OK":
            _log.info("call_slow", **fields)
        elif isinstance(error, FieldError):
            _log.info("call_refused", field=error.field[:_MAX_TEXT], **fields)  # its text may hold ids
        elif status in _FAILED:
            ours = isinstance(error, RecsysError) or error is None
            text = {"error": str(error)[:_MAX_TEXT]} if error is not None else {}
            _log.error("call_failed", exc_info=None if ours else error, **text, **fields)
        else:
            _log.info("call_refused", **fields)

    def _take_line(self) -> int | None:
        """Take a line, if the rate allows one, and return how many were left out before; else None."""
        with self._lock:
            now_s = time.monotonic()
            self._left = min(_BURST, self._left + _LINES_PER_S * (now_s - self._filled_s))
            self._filled_s = now_s
            if self._left < 1.0:
                self._num_left_out += 1
                return None
            self._left -= 1.0
            left_out, self._num_left_out = self._num_left_out, 0
            return left_out


_FAILED = frozenset({"INTERNAL", "UNAVAILABLE", "UNKNOWN"})
"""Statuses that say that the server failed, not the request."""


def log_key(folder: Path) -> bytes:
    """Return the key of the users' hashes: of a file that all workers share, readable by its owner alone.

    Where it cannot be kept, a key of this process alone.
    """
    path = folder / "log_key"
    with contextlib.suppress(OSError):
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
        if len(key) == _KEY_BYTES:
            return key
    _log.error("log_key_in_memory", path=str(path))
    return os.urandom(_KEY_BYTES)


def _make_key(path: Path) -> None:
    """Write a key whole; one that another worker has made meanwhile stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, os.urandom(_KEY_BYTES))
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)
