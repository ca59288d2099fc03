"""Samples a second of every system, in alternating fresh processes: loading, building and one epoch."""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.fresh_run import FreshRun, quiet_run
from benchmarks.speed.training.systems import System

Figures = dict[str, dict[str, Any]]
"""System -> batch size -> figures."""


def measure_throughput(
    systems: Sequence[System],
    arrays: Path,
    rows: int,
    batch_sizes: Sequence[int],
    repeats: int,
    cores: Sequence[int],
) -> Figures:
    """Time every system at every batch size; the order is turned round from one repeat to the next."""
    runs: dict[tuple[str, int], list[FreshRun | None]] = {}
    for batch_size in batch_sizes:
        for repeat in range(repeats):
            for system in systems if repeat % 2 == 0 else list(reversed(systems)):
                command = system.epoch(arrays, rows, batch_size, seed=repeat)
                found = quiet_run(command, cores, paths=system.paths)
                runs.setdefault((system.name, batch_size), []).append(found)
                said = "not measured" if found is None else f"{samples_per_second(found):,.0f} samples/s"
                print(f"{system.name}, batch {batch_size}: {said}", file=sys.stderr, flush=True)
    return {s.name: {str(b): figures_of(runs[s.name, b]) for b in batch_sizes} for s in systems}


def figures_of(runs: Sequence[FreshRun | None]) -> dict[str, Any]:
    """Sum up repeats; nothing is said of repeats of which one found no quiet moment."""
    quiet = [run for run in runs if run is not None]
    if len(quiet) < len(runs):
        return {"not_measured": f"{len(runs) - len(quiet)} of {len(runs)} runs found no quiet machine"}
    first = quiet[0].report
    kept = ("threads", "processes", "precision", "versions", "imports_rss_mb")
    return {
        "samples_per_second": spread([samples_per_second(run) for run in quiet]),
        "peak_rss_mb": max(run.report["peak_rss_mb"] for run in quiet),
        "other_cores": max(run.other_cores for run in quiet),
        **{name: first[name] for name in kept if name in first},
    }


def samples_per_second(run: FreshRun) -> float:
    """Give a run's rate."""
    return float(run.report["rows"] / run.report["seconds"])


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Give the median, both ends, and all values in the order in which they were taken."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "runs": list(values),
    }


def median_of(figures: dict[str, Any], name: str = "samples_per_second") -> float | None:
    """Read a median; None where nothing was measured."""
    return None if "not_measured" in figures else float(figures[name]["median"])
