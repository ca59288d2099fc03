"""Counters and latencies of the server; read by GetStatus and by the Prometheus endpoint."""

import threading
from bisect import bisect_left
from collections import Counter, deque

import numpy as np

_RECENT = 2_048
_RANKING = ("Recommend", "Rank")
BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Upper bounds of the latency histogram's buckets; one more bucket counts slower calls."""


class ServerStats:
    """Counters since the start, and recent latencies; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._degradation: Counter[str] = Counter()
        self._latencies_ms: deque[float] = deque(maxlen=_RECENT)
        self._histogram = [0] * (len(BOUNDS_S) + 1)
        self._total_s = 0.0
        self._num_expired = 0
        self._num_shed = 0

    def answered(self, method: str, status: str, seconds: float) -> None:
        """Count one finished call."""
        with self._lock:
            self._calls[f"{method}/{status}"] += 1
            if method in _RANKING and status == "OK":
                self._latencies_ms.append(1000 * seconds)
                self._histogram[bisect_left(BOUNDS_S, seconds)] += 1
                self._total_s += seconds

    def degraded(self, reasons: tuple[str, ...]) -> None:
        """Count an answer's degradation reasons."""
        if reasons:
            with self._lock:
                self._degradation.update(reasons)

    def expired(self) -> None:
        """Count a call whose deadline had passed before any work."""
        with self._lock:
            self._num_expired += 1

    def shed(self) -> None:
        """Count a call refused for overload."""
        with self._lock:
            self._num_shed += 1

    @property
    def num_expired(self) -> int:
        """Count calls that expired before scoring."""
        return self._num_expired

    @property
    def num_shed(self) -> int:
        """Count calls refused for overload."""
        return self._num_shed

    def calls(self) -> dict[str, int]:
        """Count calls by "Method/STATUS"."""
        with self._lock:
            return dict(sorted(self._calls.items()))

    def degradation(self) -> dict[str, int]:
        """Count answers by degradation reason."""
        with self._lock:
            return dict(sorted(self._degradation.items()))

    def histogram(self) -> tuple[list[int], float]:
        """Return the ranking calls by bucket of BOUNDS_S, and their total seconds."""
        with self._lock:
            return list(self._histogram), self._total_s

    def latency_ms(self) -> dict[str, float]:
        """Return quantiles of recent ranking calls; empty before the first."""
        with self._lock:
            recent = list(self._latencies_ms)
        if not recent:
            return {}
        p50, p99 = np.percentile(recent, [50, 99])
        return {"p50": float(p50), "p99": float(p99)}
