"""A circuit breaker: after a few failures in a row calls fail at once, until one probe gets through.

closed ──`failures` in a row──▶ open ──after `open_s`──▶ half-open: one call probes ──▶ closed, or open again.
"""

import threading
import time
from collections.abc import Callable
from typing import Literal, TypeVar

import structlog

from recsys.errors import StoreError

State = Literal["closed", "open", "half-open"]
T = TypeVar("T")
_log = structlog.get_logger(__name__)


class CircuitOpenError(StoreError):
    """Raised without a call: earlier calls failed, and the time for a probe has not come."""


class CircuitBreaker:
    """Guards calls to one server; safe to use from many threads.

    Args: name: what is guarded, for messages; failures: so many in a row open it; open_s: seconds until a
    probe; counts: errors that say the server is not there. Others say that it answered.
    """

    def __init__(
        self,
        name: str,
        failures: int,
        open_s: float,
        counts: tuple[type[BaseException], ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._limit, self._open_s = name, failures, open_s
        self._counts, self._clock = counts, clock
        self._lock = threading.Lock()
        self._failed = 0
        self._opened_at: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        """Say how the circuit is now."""
        with self._lock:
            if self._opened_at is None:
                return "closed"
            return "half-open" if self._probing or self._may_probe() else "open"

    def call(self, operation: Callable[[], T], *, with_little_time: bool = False) -> T:
        """Run an operation, or refuse to.

        Args: with_little_time: it has less than a server that is well may need, so a failure says nothing.
        Raises: CircuitOpenError when the circuit is open; whatever the operation raises.
        """
        probe = self._admit()
        try:
            result = operation()
        except self._counts as error:
            if with_little_time:
                self._on_interrupt(probe)
            else:
                self._on_failure(probe, error)
            raise
        except Exception:
            self._on_answer(probe)
            raise
        except BaseException:  # interrupted: this says nothing about the server
            self._on_interrupt(probe)
            raise
        self._on_answer(probe)
        return result

    def _may_probe(self) -> bool:
        return self._opened_at is not None and self._clock() - self._opened_at >= self._open_s

    def _admit(self) -> bool:
        """Let a call in; tell whether it is the probe."""
        with self._lock:
            if self._opened_at is None:
                return False
            if self._probing or not self._may_probe():
                raise CircuitOpenError(
                    f"{self._name} failed {self._failed} times in a row; no calls for "
                    f"{self._open_s:g} s; check that it is up"
                )
            self._probing = True
            return True

    def _on_failure(self, probe: bool, error: BaseException) -> None:
        with self._lock:
            self._failed += 1
            opens = probe or (self._opened_at is None and self._failed >= self._limit)
            first = opens and not probe
            if opens:
                self._opened_at = self._clock()
            if probe:
                self._probing = False
        if first:
            _log.warning("circuit_opened", store=self._name, error=str(error))

    def _on_answer(self, probe: bool) -> None:
        """Close after a probe; a call that was under way when the circuit opened does not close it."""
        with self._lock:
            if probe:
                self._opened_at, self._probing = None, False
            if self._opened_at is None:
                self._failed = 0
        if probe:
            _log.info("circuit_closed", store=self._name)

    def _on_interrupt(self, probe: bool) -> None:
        with self._lock:
            if probe:
                self._probing = False
