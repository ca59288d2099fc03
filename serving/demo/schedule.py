"""When the demo's users make requests: a schedule over an evening, and the server's simulated clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from recsys.simulator.dials import IntArray
from serving.client_values import ServerStatus

_SYNCS = 5


class ServerClock:
    """An estimate of the server's simulated clock, never ahead of it: early feedback would be rejected.

    Args: status: calls GetStatus; the quickest of a few replies is used. rate: simulated seconds per second.
    """

    def __init__(self, status: Callable[[], ServerStatus], rate: float) -> None:
        self._rate = rate
        quickest = float("inf")
        for _ in range(_SYNCS):
            sent = time.monotonic()
            now = status().now
            received = time.monotonic()
            if received - sent < quickest:
                quickest, self._at, self._now = received - sent, received, now

    def now(self) -> datetime:
        """Return the simulated instant."""
        return self._now + timedelta(seconds=(time.monotonic() - self._at) * self._rate)

    def seconds_until(self, instant: datetime) -> float:
        """Return the real seconds until a simulated instant; negative when it has passed."""
        return (instant - self.now()).total_seconds() / self._rate


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    """A user requests a list."""

    user: int


def schedule_requests(
    start: datetime, end: datetime, users: IntArray, rng: np.random.Generator
) -> list[tuple[datetime, ScheduledRequest]]:
    """Draw a uniform instant from start to end for one request of each user [N]; in order of time."""
    at_s = np.sort(rng.random(len(users))) * (end - start).total_seconds()
    return [
        (start + timedelta(seconds=s), ScheduledRequest(int(u))) for s, u in zip(at_s, users, strict=True)
    ]
