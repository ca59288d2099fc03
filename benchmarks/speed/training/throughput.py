"""Samples a second of every system, in alternating fresh processes: loading, building and one epoch."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.fresh_run import FreshRun, Patience, quiet_run
from benchmarks.speed.training.systems import System

Figures = dict[str, dict[str, Any]]
"""System -> batch size -> figures."""


def measure_throughput(
    entrants: Mapping[int, Sequence[System]],
    arrays: Path,
    rows: int,
    repeats: int,
    cores: Sequence[int],
    patience: Patience,
) -> Figures:
    """Time every batch size's systems; the order is turned round from one repeat to the next."""
    found: Figures = {}
    for batch_size, systems in entrants.items():
        runs: dict[str, list[FreshRun]] = {system.name: [] for system in systems}
        for repeat in range(repeats):
            for system in systems if repeat % 2 == 0 else list(reversed(systems)):
                command = system.epoch(arrays, rows, batch_size, seed=repeat)
                run = quiet_run(command, cores, patience, paths=system.paths)
                runs[system.name].append(run)
                say_rate(f"{system.name}, batch {batch_size}", run)
        for name, own in runs.items():
            found.setdefault(name, {})[str(batch_size)] = figures_of(own)
    return found


def figures_of(runs: Sequence[FreshRun]) -> dict[str, Any]:
    """Sum up repeats; `noisy` says whether others disturbed one of them."""
    first = runs[0].report
    kept = ("threads", "processes", "precision", "versions", "imports_rss_mb")
    return {
        "samples_per_second": spread([samples_per_second(run) for run in runs]),
        "peak_rss_mb": max(run.report["peak_rss_mb"] for run in runs),
        **load_of(runs),
        **{name: first[name] for name in kept if name in first},
    }


def load_of(runs: Sequence[FreshRun]) -> dict[str, Any]:
    """Give the most that others took of the cores beside one of the runs, and whether that was too much."""
    return {"other_cores": max(run.other_cores for run in runs), "noisy": any(run.noisy for run in runs)}


def say_rate(what: str, run: FreshRun) -> None:
    """Print a run's rate."""
    beside = f", others took {run.other_cores:.2f} cores" if run.noisy else ""
    print(f"{what}: {samples_per_second(run):,.0f} samples/s{beside}", file=sys.stderr, flush=True)


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


def median_of(figures: Mapping[str, Any]) -> float:
    """Read the median rate."""
    return float(figures["samples_per_second"]["median"])
