"""The server's clock: the machine's, or a simulated one that starts at another instant."""

import threading
import time
from datetime import UTC, datetime
from typing import Protocol

import structlog

from recsys.errors import ConfigError

MAX_RATE = 1e5
"""Simulated seconds per second: a day in .9 seconds. The year 9999, which has no next, is weeks away."""
_YEARS = range(1970, 3000)


class Clock(Protocol):
    """Tells the current instant."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970, UTC."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000


class SimulatedClock:
    """A clock that starts at a given instant; for demos and replays of a log's days.

    Args: rate: simulated seconds per real second; since_ns: where `time.monotonic_ns` stood at the start, for
    processes that share one time; None: it starts now.
    """

    def __init__(self, start_ms: int, rate: float = 1.0, since_ns: int | None = None) -> None:
        self._start_ms = start_ms
        self._rate = rate
        self._since_ns = time.monotonic_ns() if since_ns is None else since_ns

    def now_ms(self) -> int:
        """Return milliseconds since 1970, UTC."""
        passed_ns = time.monotonic_ns() - self._since_ns
        return self._start_ms + int(passed_ns * self._rate) // 1_000_000

    def restart(self) -> None:
        """Stand at the start again, now."""
        self._since_ns = time.monotonic_ns()


_MAX_AHEAD_MS = 1_000
_log = structlog.get_logger(__name__)


class OrderedClock:
    """A clock by which a request is later than all feedback recorded before it.

    Feedback and the next request may fall into the same millisecond, and a request sees only feedback
    received strictly before its own instant. When the machine's clock is set back by up to a second, this one
    waits for it. A larger step is a clock that was wrong: it is followed, and feedback recorded meanwhile is
    seen when its instant comes.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._received_ms = 0

    def now_ms(self) -> int:
        """Return the instant of a request."""
        with self._lock:
            now_ms = self._machine_ms()
            return max(now_ms, self._received_ms + 1)

    def received_ms(self) -> int:
        """Return the instant of feedback; every later request is after it."""
        with self._lock:
            self._received_ms = max(self._machine_ms(), self._received_ms)
            return self._received_ms

    def _machine_ms(self) -> int:
        now_ms = self._clock.now_ms()
        if self._received_ms > now_ms + _MAX_AHEAD_MS:
            _log.warning("clock_set_back", ms=self._received_ms - now_ms)
            self._received_ms = now_ms
        return now_ms


def clock_from(start: str | None, rate: float = 1.0, since_ns: int | None = None) -> Clock:
    """Make the machine's clock, or a simulated one from an ISO instant (without an offset: UTC).

    Args: rate, since_ns: as `SimulatedClock` takes them.
    Raises: ConfigError when the instant cannot be read, or a rate is given without one.
    """
    if not 0 < rate <= MAX_RATE:
        raise ConfigError(
            f"--clock-rate {rate:g} is not above 0 and at most {MAX_RATE:g}; give simulated seconds per "
            "second, like 60"
        )
    if start is None:
        if rate != 1.0:
            raise ConfigError(f"--clock-rate {rate:g} needs --clock-start: only a simulated clock has a rate")
        return SystemClock()
    try:
        instant = datetime.fromisoformat(start)
    except ValueError:
        raise ConfigError(f"--clock-start {start!r} is not an instant; write 2026-03-01T12:00:00Z") from None
    if instant.year not in _YEARS:
        raise ConfigError(f"--clock-start {start!r} is not between 1970 and 2999; write a year of these")
    instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
    return SimulatedClock(int(instant.timestamp() * 1000), rate, since_ns)
