"""The number of processors a process may use, by its affinity and by its cgroups' quotas (v1 and v2).

A container with `--cpus 2` on a machine of 64 sees 64 processors, but is stopped for the rest of each period
once it has used two processors' time.
"""

import os
from collections.abc import Iterator
from pathlib import Path


def num_cpus(root: Path = Path("/")) -> int:
    """Count the processors this process can keep busy; at least 1.

    Half a processor of quota is not counted: a thread that needs more than it gets is stopped in mid-request.

    Args: root: where `proc` and `sys` lie.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the smallest quota of this process's cgroup and those above it, in processors; None: none."""
    quotas = [_quota_v1(folder) or _quota_v2(folder) for folder in _folders(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _folders(root: Path) -> Iterator[Path]:
    """List the folders of this process's cgroups, each up to the root that is mounted here."""
    paths = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, system = line.partition(" - ")
        kind, *_, options = system.split(" ")
        controller = {"cgroup2": "", "cgroup": "cpu"}.get(kind)
        if controller not in paths or (controller and controller not in options.split(",")):
            continue
        mounted, point = (part.replace(r"\040", " ") for part in mount.split(" ")[3:5])
        top = root / point.lstrip("/")
        # In a container the path may be the host's, of which only the container's own part is mounted.
        below = paths[controller].removeprefix(mounted.rstrip("/")).strip("/")
        folder = top / below
        yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(top)))


def _quota_v2(folder: Path) -> float | None:
    """Read `cpu.max`, like "150000 100000"; "max 100000" is no limit."""
    for line in _lines(folder / "cpu.max"):
        quota, _, period = line.partition(" ")
        return None if quota == "max" else int(quota) / int(period or 100_000)
    return None


def _quota_v1(folder: Path) -> float | None:
    """Read `cpu.cfs_quota_us`, where -1 is no limit, and its period."""
    for quota in _lines(folder / "cpu.cfs_quota_us"):
        for period in _lines(folder / "cpu.cfs_period_us"):
            return int(quota) / int(period) if int(quota) > 0 else None
    return None


def _lines(file: Path) -> list[str]:
    """Read a file's lines; none where there is no such file, as outside Linux."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
