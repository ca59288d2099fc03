"""The stats of all workers of a server, in one buffer: a row each, which only that worker writes.

    buffer = one ROW (`serving.stats`) per worker       bytearray, or memory that all processes map

Any worker sums the rows, so each answers GetStatus and Prometheus for the whole server. No lock is held
between processes. A worker that is started again goes on in its row, so no counter goes back.
"""

import mmap
import time
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.histograms import quantile_s
from serving.stats import (
    COUNTERS,
    METHODS,
    REASONS,
    RECENT_S,
    ROW,
    STAGES,
    STATUSES,
    WHOLE,
    ServerStats,
)
from serving.worker_facts import STATES, State, WorkerFacts

_FACT_READS = 100
_SERVING = STATES.index("serving")
_PERCENTILES = {"p50": 0.5, "p99": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """What the board shows of one worker."""

    number: int
    state: State
    num_restarts: int
    facts: WorkerFacts | None
    """None until the worker has published them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over all workers, since the server's start."""

    counters: dict[str, int]
    """By name of COUNTERS."""
    degraded: dict[str, int]
    """Answers by degradation reason; only those that occurred."""
    calls: npt.NDArray[np.int64]
    """[methods, statuses, buckets]."""
    calls_s: npt.NDArray[np.float64]
    """[methods, statuses], seconds of those calls."""
    stages: npt.NDArray[np.int64]
    """[stages, buckets], of ranking calls."""
    stages_s: npt.NDArray[np.float64]
    """[stages], seconds."""
    recent: npt.NDArray[np.int64]
    """[stages + 1, buckets]: of the last one to two periods; the last line counts whole calls."""

    def num_calls(self) -> dict[str, int]:
        """Count calls by "Method/STATUS", those that occurred."""
        counts = self.calls.sum(axis=2)
        return {
            f"{METHODS[m]}/{STATUSES[s]}": int(counts[m, s])
            for m, s in sorted(zip(*np.nonzero(counts), strict=True), key=lambda at: METHODS[at[0]])
        }

    def latency_ms(self) -> dict[str, float]:
        """Return quantiles of recent ranking calls; empty when there were none."""
        return _quantiles_ms(self.recent[WHOLE])

    def stage_ms(self) -> dict[str, dict[str, float]]:
        """Return quantiles of recent ranking calls by stage; a stage that did not occur is left out."""
        found = {stage: _quantiles_ms(self.recent[at]) for at, stage in enumerate(STAGES)}
        return {stage: quantiles for stage, quantiles in found.items() if quantiles}


class StatsBoard:
    """Rows of counters over a writable buffer of `size` bytes."""

    def __init__(self, buffer: bytearray | memoryview | mmap.mmap, num_workers: int) -> None:
        self._rows: npt.NDArray[np.void] = np.frombuffer(buffer, ROW, num_workers)
        self.num_workers = num_workers

    @classmethod
    def for_one(cls) -> "StatsBoard":
        """Make the board of a server whose only worker is this process."""
        return cls(bytearray(cls.size(1)), 1)

    @staticmethod
    def size(num_workers: int) -> int:
        """Return the bytes that a buffer needs; zeros are an empty board."""
        return ROW.itemsize * num_workers

    def own(self, worker: int) -> ServerStats:
        """Take a worker's row: its counters go on, its facts are forgotten."""
        self._rows["facts_size"][worker] = 0
        self._rows["facts_crc"][worker] = 0
        self._rows["pending"][worker] = 0
        self.enter(worker, "starting")
        return ServerStats(self._rows[worker : worker + 1])

    def enter(self, worker: int, state: State) -> None:
        """Set a worker's state; a parent does so for one that has died."""
        self._rows["state"][worker] = STATES.index(state)

    def count_restart(self, worker: int) -> None:
        """Count that a worker died and is started again."""
        self._rows["num_restarts"][worker] += 1

    def workers(self) -> tuple[WorkerStatus, ...]:
        """Return what each worker has shown."""
        return tuple(
            WorkerStatus(
                number=at,
                state=STATES[int(self._rows["state"][at])],
                num_restarts=int(self._rows["num_restarts"][at]),
                facts=self._facts(at),
            )
            for at in range(self.num_workers)
        )

    def pending(self) -> dict[int, int]:
        """Return the unfinished ranking calls of each worker that serves."""
        states, counts = self._rows["state"].tolist(), self._rows["pending"].tolist()
        return {n: counts[n] for n, state in enumerate(states) if state == _SERVING}

    def all_serve(self, version: str) -> bool:
        """Tell whether every worker that answers does so with a version; one that is started will load it."""
        serving = [worker for worker in self.workers() if worker.state == "serving"]
        return bool(serving) and all(w.facts is not None and w.facts.version == version for w in serving)

    def totals(self) -> Totals:
        """Sum the rows of all workers."""
        rows = self._rows
        counters, degraded = rows["counters"].sum(axis=0), rows["degraded"].sum(axis=0)
        return Totals(
            counters=dict(zip(COUNTERS, counters.tolist(), strict=True)),
            degraded={name: n for name, n in zip(REASONS, degraded.tolist(), strict=True) if n},
            calls=rows["calls"].sum(axis=0),
            calls_s=rows["calls_s"].sum(axis=0),
            stages=rows["stages"].sum(axis=0),
            stages_s=rows["stages_s"].sum(axis=0),
            recent=self._recent(),
        )

    def _recent(self) -> npt.NDArray[np.int64]:
        """Sum the histograms of this period and the one before."""
        is_recent = self._rows["recent_period"] >= int(time.monotonic() // RECENT_S) - 1
        recent: npt.NDArray[np.int64] = self._rows["recent"][is_recent].sum(axis=0)
        return recent

    def _facts(self, worker: int) -> WorkerFacts | None:
        """Read a worker's facts; None before it published any, or if it is killed while it writes them."""
        for _ in range(_FACT_READS):
            size = int(self._rows["facts_size"][worker])
            if size == 0:
                return None
            data = self._rows["facts"][worker][:size].tobytes()
            if zlib.crc32(data) == self._rows["facts_crc"][worker]:
                return WorkerFacts.decode(data)
        return None


def _quantiles_ms(counts: npt.NDArray[np.int64]) -> dict[str, float]:
    if not counts.any():
        return {}
    return {name: 1000 * quantile_s(counts, share) for name, share in _PERCENTILES.items()}
