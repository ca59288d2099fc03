"""How much memory a process may still have: the host's, or less where its control group has a limit."""

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


def _left_in_groups() -> list[int]:
    """Give what each limit above this process leaves (cgroup v2; file pages that can go are not counted)."""
    try:
        own = next(line[3:] for line in OWN_GROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    left, group = [], GROUPS / own.lstrip("/")
    for folder in (group, *group.parents):
        try:
            limit = int((folder / "memory.max").read_text())
            used = int((folder / "memory.current").read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left.append(max(0, limit - used + int(stat["inactive_file"])))
        except (OSError, KeyError, ValueError):  # no limit ("max"), or no such group
            continue
    return left
