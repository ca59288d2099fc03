"""When the demo's users ask: requests spread over an evening, and the server's simulated clock to go by."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from recsys.simulator.dials import IntArray
from serving.client_values import ServerStatus

_SYNCS = 5


class ServerTime:
    """The server's simulated instant, never ahead of it: an action "before" its list was shown is refused.

    Args: status: asks the server; the quickest of a few replies is taken; rate: simulated seconds a second.
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
class Ask:
    """A user asks for a list."""

    user: int


def evening(
    start: datetime, end: datetime, users: IntArray, rng: np.random.Generator
) -> list[tuple[datetime, Ask]]:
    """Spread one request of each user [N] over the time from start to end, uniformly at random, in order."""
    at_s = np.sort(rng.random(len(users))) * (end - start).total_seconds()
    return [(start + timedelta(seconds=s), Ask(int(u))) for s, u in zip(at_s, users, strict=True)]
