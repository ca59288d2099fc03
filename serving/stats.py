"""What one worker counts: calls, stages, degraded answers, lists; written into its row of the stats board.

The row has a fixed layout (`ROW`), so that it may lie in memory shared by several processes. Only its worker
writes it. Readers see single numbers whole, but perhaps the histogram of a call before its sum.
"""

import threading
import time
import zlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from serving.histograms import NUM_BUCKETS, bucket_of
from serving.request import DEGRADATION_REASONS
from serving.worker_facts import WorkerFacts

OTHER = "other"
METHODS = (
    "Recommend",
    "Rank",
    "RecordFeedback",
    "UpsertItems",
    "ListVersions",
    "Activate",
    "Rollback",
    "GetStatus",
    OTHER,
)
STATUSES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "UNIMPLEMENTED",
    "OUT_OF_RANGE",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
)
RANKING = ("Recommend", "Rank")
STAGES = (
    "queue_wait",
    "parse",
    "merge",
    "features",
    "retrieval",
    "scoring",
    "policy",
    "journal",
    "response",
)
"""Of a ranking call, in their order."""
COUNTERS = ("expired", "shed", "lists", "explored_lists", "impressions", "handed_over")
REASONS = (*DEGRADATION_REASONS, OTHER)
WHOLE = len(STAGES)
"""The line of the recent histograms that counts whole ranking calls; those before are STAGES."""
RECENT_S = 60
"""Percentiles are of the current period of so many seconds and the one before."""
FACTS_BYTES = 8_192
ROW = np.dtype(
    [
        ("state", np.int64),
        ("num_restarts", np.int64),
        ("pending", np.int64),
        ("counters", np.int64, len(COUNTERS)),
        ("degraded", np.int64, len(REASONS)),
        ("calls", np.int64, (len(METHODS), len(STATUSES), NUM_BUCKETS)),
        ("calls_s", np.float64, (len(METHODS), len(STATUSES))),
        ("stages", np.int64, (len(STAGES), NUM_BUCKETS)),
        ("stages_s", np.float64, len(STAGES)),
        ("recent_period", np.int64, 2),
        ("recent", np.int64, (2, WHOLE + 1, NUM_BUCKETS)),
        ("facts_size", np.uint32),
        ("facts_crc", np.uint32),
        ("facts", np.uint8, FACTS_BYTES),
    ],
    align=True,
)

_METHOD = {name: at for at, name in enumerate(METHODS)}
_STATUS = {name: at for at, name in enumerate(STATUSES)}
_STAGE = {name: at for at, name in enumerate(STAGES)}
_COUNTER = {name: at for at, name in enumerate(COUNTERS)}
_REASON = {name: at for at, name in enumerate(REASONS)}


class ServerStats:
    """Counts into one worker's row; safe to use from many threads.

    Args: row: [1] of ROW, writable.
    """

    def __init__(self, row: npt.NDArray[np.void]) -> None:
        self._lock = threading.Lock()
        self._row = row
        self._pending, self._counters = row["pending"], row["counters"][0]
        self._degraded = row["degraded"][0]
        self._calls, self._calls_s = row["calls"][0], row["calls_s"][0]
        self._stages, self._stages_s = row["stages"][0], row["stages_s"][0]
        self._recent_period, self._recent = row["recent_period"][0], row["recent"][0]

    def waiting(self, num_pending: int) -> None:
        """Show how many ranking calls are unfinished."""
        self._pending[0] = num_pending

    def answered(self, method: str, status: str, seconds: float) -> None:
        """Count one finished call."""
        at = _METHOD.get(method, _METHOD[OTHER]), _STATUS[status]
        bucket = bucket_of(seconds)
        with self._lock:
            self._calls[(*at, bucket)] += 1
            self._calls_s[at] += seconds
            if method in RANKING and status == "OK":
                self._recent_slot()[WHOLE, bucket] += 1

    def staged(self, stage_s: Mapping[str, float]) -> None:
        """Count the seconds of some stages of one ranking call."""
        timed = [(_STAGE[stage], bucket_of(seconds), seconds) for stage, seconds in stage_s.items()]
        with self._lock:
            recent = self._recent_slot()
            for stage, bucket, seconds in timed:
                self._stages[stage, bucket] += 1
                self._stages_s[stage] += seconds
                recent[stage, bucket] += 1

    def degraded(self, reasons: Iterable[str]) -> None:
        """Count an answer's degradation reasons."""
        with self._lock:
            for reason in reasons:
                self._degraded[_REASON.get(reason, _REASON[OTHER])] += 1

    def shown(self, num_impressions: int, *, first_page: bool, explored: bool) -> None:
        """Count a journalled page; a list counts once, with its first page."""
        with self._lock:
            self._counters[_COUNTER["impressions"]] += num_impressions
            if first_page:
                self._counters[_COUNTER["lists"]] += 1
                self._counters[_COUNTER["explored_lists"]] += explored

    def expired(self) -> None:
        """Count a call that nobody waited for any more before its answer was ready."""
        with self._lock:
            self._counters[_COUNTER["expired"]] += 1

    def shed(self) -> None:
        """Count a call refused for overload."""
        with self._lock:
            self._counters[_COUNTER["shed"]] += 1

    def handed_over(self) -> None:
        """Count a call that a sibling worker answers."""
        with self._lock:
            self._counters[_COUNTER["handed_over"]] += 1

    def publish(self, facts: WorkerFacts) -> None:
        """Show this worker's facts to the others."""
        data = facts.encode(FACTS_BYTES)
        with self._lock:
            self._row["facts"][0][: len(data)] = np.frombuffer(data, np.uint8)
            self._row["facts_size"][0] = len(data)
            # Written last: a reader that finds another sum reads again.
            self._row["facts_crc"][0] = zlib.crc32(data)

    def _recent_slot(self) -> npt.NDArray[np.int64]:
        """Return the histograms of this period; those of two periods ago are cleared for it."""
        period = int(time.monotonic() // RECENT_S)
        slot = period % 2
        if self._recent_period[slot] != period:
            self._recent[slot] = 0
            self._recent_period[slot] = period
        here: npt.NDArray[np.int64] = self._recent[slot]
        return here
