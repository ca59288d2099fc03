"""Estimates of time on this machine: what each stage of an answer takes, and how long callers wait."""

import threading

# One slow answer (another process, garbage collection) multiplies an estimate by this at most.
_LARGEST_JUMP = 4.0
_WEIGHT = 0.1
# Of a patience below which this share of the calls falls. Those with more time can come back later.
_IMPATIENT_SHARE = 0.1
_STEP = 0.05
_LEAST_S = 0.01


class MovingAverage:
    """Moving average of positive numbers; 0 before the first. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.value = 0.0

    def observe(self, value: float) -> None:
        """Take in one number."""
        with self._lock:
            if self.value == 0.0:
                self.value = value
            else:
                limited = min(value, _LARGEST_JUMP * self.value)
                self.value = (1.0 - _WEIGHT) * self.value + _WEIGHT * limited

    def scale(self, factor: float) -> None:
        """Multiply the average."""
        with self._lock:
            self.value *= factor


class Patience:
    """The time that nine of ten calls have at least: a moving quantile of their deadlines.

    Args: default_s: the time of a call without a deadline.
    """

    def __init__(self, default_s: float) -> None:
        self._default_s = default_s
        self._lock = threading.Lock()
        self.seconds = default_s

    def observe(self, deadline_s: float | None) -> None:
        """Take in how much time a caller gives a call; None: no limit."""
        allowed_s = self._default_s if deadline_s is None else max(_LEAST_S, deadline_s)
        with self._lock:
            if allowed_s < self.seconds:
                self.seconds = max(allowed_s, self.seconds * (1.0 - _STEP * (1.0 - _IMPATIENT_SHARE)))
            else:
                self.seconds = min(allowed_s, self.seconds * (1.0 + _STEP * _IMPATIENT_SHARE))
