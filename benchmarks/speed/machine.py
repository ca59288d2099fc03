"""What a bench asks of the machine it runs on: time, memory, and how fast it copies."""

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(slots=True)
class Spent:
    """Wall-clock and processor seconds, of all threads and of processes waited for."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def spent() -> Iterator[Spent]:
    """Time a block."""
    found = Spent()
    wall, cpu = time.perf_counter(), _cpu_s()
    try:
        yield found
    finally:
        found.wall_s, found.cpu_s = time.perf_counter() - wall, _cpu_s() - cpu


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    with spent() as found:
        call()
    return found.wall_s


def copy_rate() -> float:
    """Measure how many bytes a second this machine copies."""
    data = np.ones(64_000_000, np.uint8)
    return data.size / statistics.median(seconds(data.copy) for _ in range(5))


def forget_peak() -> None:
    """Let the kernel count the peak anew, where it can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss() -> int:
    """Give the most bytes this process has held at once, since it began or since `forget_peak`."""
    with suppress(OSError):
        status = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def num_threads() -> int:
    """Count the threads that libraries may use here."""
    return int(os.environ.get("POLARS_MAX_THREADS") or os.cpu_count() or 1)


def _cpu_s() -> float:
    own, children = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
