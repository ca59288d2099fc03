"""One program in a fresh process on two cores, while what other processes take of those cores is counted.

A busy neighbour slows a run of two threads many times over (docs/benchmarks/training-speed.md). So a timed
run beside more than `MAX_OTHER_CORES` is made again, as long as there is `Patience`. Where no quiet moment
was found, the least disturbed run counts, and says that it is noisy: on a machine that is never quiet a
figure beside its load is worth more than none. All programs get the same cores, threads and allocator.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.speed.processes import STAT, others
from recsys.errors import ConfigError, DataError

NUM_CORES: Final = 2
MAX_OTHER_CORES: Final = 0.15
MAX_TRIES: Final = 5
ALLOCATOR: Final = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432"
    ":glibc.malloc.trim_threshold=1073741824"
}
"""Large temporaries stay in the process, on huge pages: a step would spend its time in page faults."""


@dataclass(frozen=True, slots=True)
class FreshRun:
    """What a program printed, and how many cores others took meanwhile."""

    report: dict[str, Any]
    other_cores: float
    seconds: float = math.nan
    """Of the whole program, its start included."""

    @property
    def noisy(self) -> bool:
        """Tell whether others disturbed it."""
        return self.other_cores > MAX_OTHER_CORES


@dataclass(slots=True)
class Patience:
    """Seconds that are left for making disturbed runs again, of all runs of a command together."""

    seconds: float = math.inf


def keep_to_cores(count: int = NUM_CORES) -> tuple[int, ...]:
    """Keep this process, and those it starts, to its first so many cores; return them.

    Raises: ConfigError without Linux's /proc/stat, or with fewer cores.
    """
    if not STAT.exists():
        raise ConfigError("the bench counts other processes' load in /proc/stat; run it on Linux")
    cores = tuple(sorted(os.sched_getaffinity(0))[:count])
    if len(cores) < count:
        raise ConfigError(f"the bench needs {count} cores, this process may use {len(cores)}")
    os.sched_setaffinity(0, cores)
    return cores


def fresh_run(
    command: Sequence[str],
    cores: Sequence[int],
    threads: int,
    paths: Sequence[Path] = (),
    allocator: Mapping[str, str] = ALLOCATOR,
) -> FreshRun:
    """Run a program to its end; its last line of output is JSON.

    Args: threads: of OpenMP, at most; paths: folders that it imports from; allocator: its settings.
    Raises: DataError with the program's last words when it fails.
    """
    began = time.perf_counter()
    environment = _environment(threads, paths, allocator)
    with others(cores) as beside:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    wall = time.perf_counter() - began
    if done.returncode:
        words = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise DataError(f"{' '.join(command[:4])} … ended with {done.returncode}: {words}")
    return FreshRun(json.loads(done.stdout.strip().splitlines()[-1]), beside.cores, wall)


def quiet_run(
    command: Sequence[str],
    cores: Sequence[int],
    patience: Patience,
    threads: int = NUM_CORES,
    paths: Sequence[Path] = (),
    allocator: Mapping[str, str] = ALLOCATOR,
) -> FreshRun:
    """Run a program until others leave it alone, or patience is at an end; give the least disturbed run."""
    best = fresh_run(command, cores, threads, paths, allocator)
    for _ in range(MAX_TRIES - 1):
        if not best.noisy or patience.seconds <= 0:
            break
        print(f"  others took {best.other_cores:.2f} cores: again", file=sys.stderr, flush=True)
        began = time.perf_counter()
        best = min(
            best, fresh_run(command, cores, threads, paths, allocator), key=lambda run: run.other_cores
        )
        patience.seconds -= time.perf_counter() - began
    return best


def parallel_runs(
    commands: Sequence[tuple[Sequence[str], Sequence[Path]]],
) -> Iterator[dict[str, Any]]:
    """Run programs side by side, one thread and one core each, for results that do not depend on time.

    Args: commands: each with the folders that it imports from. Gives reports in the order of the commands.
    """

    def run(asked: tuple[Sequence[str], Sequence[Path]]) -> dict[str, Any]:
        command, paths = asked
        return fresh_run(command, (), 1, paths).report

    with ThreadPoolExecutor(NUM_CORES) as pool:
        yield from pool.map(run, commands)


def _environment(threads: int, paths: Sequence[Path], allocator: Mapping[str, str]) -> dict[str, str]:
    """Give the same surroundings to every program."""
    own: Mapping[str, str] = {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, **allocator, **own}


def cpu_name() -> str:
    """Name the processor, and the instructions for bfloat16 that it has."""
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    known = {key.strip(): value.strip() for key, value in fields.items()}
    extra = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in known.get("flags", "").split()]
    return ", ".join([known.get("model name", "unknown"), *extra])
