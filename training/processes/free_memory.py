"""How much memory a process may still have: the host's, or less where its control group has a limit."""

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Count the bytes that can be had without swapping; None where the system does not say (not Linux)."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
    return min([free, *_left_in_groups()])


def total_memory() -> int:
    """Count the bytes that are built in, or that a control group above this process allows: ever the same."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _groups():
        try:
            found = min(found, int((folder / "memory.max").read_text()))
        except (OSError, ValueError):  # no limit ("max"), or no such group
            continue
    return found


def _left_in_groups() -> list[int]:
    """Give what each limit above this process leaves (cgroup v2; file pages that can go are not counted)."""
    left = []
    for folder in _groups():
        try:
            limit = int((folder / "memory.max").read_text())
            used = int((folder / "memory.current").read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left.append(max(0, limit - used + int(stat["inactive_file"])))
        except (OSError, KeyError, ValueError):  # no limit ("max"), or no such group
            continue
    return left


def _groups() -> list[Path]:
    """List the folders of this process's control group and of those above it."""
    try:
        own = next(line[3:] for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = GROUPS / own.lstrip("/")
    return [group, *group.parents]
