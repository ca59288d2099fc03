"""Processes: which belong to which, their processor time and memory, and the load of others (Linux)."""

import os
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICK: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
STAT: Final = Path("/proc/stat")
_IDLE: Final = (3, 4)
"""Columns of a core's line in /proc/stat: idle, waiting for a disk."""
_GUESTS: Final = 8
"""From here on columns repeat what is counted before."""


@dataclass(slots=True)
class Others:
    """What other processes took while a block ran."""

    cores: float = 0.0


@contextmanager
def others(cores: Sequence[int]) -> Iterator[Others]:
    """Count how many of some cores processes took that are neither this one nor below it."""
    found = Others()
    began, busy, own = time.perf_counter(), busy_s(cores), own_s()
    try:
        yield found
    finally:
        wall_s, others_s = time.perf_counter() - began, (busy_s(cores) - busy) - (own_s() - own)
        found.cores = max(0.0, others_s / wall_s)


def busy_s(cores: Sequence[int]) -> float:
    """Sum the seconds that cores were busy with anything since the machine began, stolen ones too."""
    lines = (line.split() for line in STAT.read_text().splitlines())
    ticks = {line[0]: list(map(int, line[1:])) for line in lines if line[0].startswith("cpu")}
    counted = (enumerate(ticks[f"cpu{core}"][:_GUESTS]) for core in cores)
    return sum(value for line in counted for column, value in line if column not in _IDLE) / _TICK


def own_s() -> float:
    """Give the processor seconds of this process, of all below it, and of all it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used) + tree_cpu_s(os.getpid()) - cpu_s(os.getpid())


def family(pid: int) -> list[int]:
    """List a process and all processes below it (Linux)."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_stat_fields(entry)[1])
            except OSError:  # it ended meanwhile
                continue
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def command_of(pid: int) -> list[str]:
    """Give the words of the command that a process runs; none when it is gone (Linux)."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def cpu_s(pid: int) -> float:
    """Give the processor seconds that a process has used; 0 when it is gone (Linux)."""
    try:
        fields = _stat_fields(Path("/proc") / str(pid))
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def tree_cpu_s(pid: int) -> float:
    """Give the processor seconds of a process and of all that live below it (Linux)."""
    return sum(map(cpu_s, family(pid)))


def pss_mb(pid: int) -> float:
    """Give a process's proportional set size in MB; 0 when it is gone (Linux)."""
    try:
        lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def _stat_fields(process: Path) -> list[str]:
    """Give the fields of a process's `stat` behind its name, which may hold spaces: state, parent, …."""
    return (process / "stat").read_text().rpartition(")")[2].split()
