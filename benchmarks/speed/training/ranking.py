"""Test AUC of every system after one epoch, and whether the measure itself is right."""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.fresh_run import fresh_run, parallel_runs
from benchmarks.speed.training.click_log import COLUMN_SIZES, TASKS, read_array
from benchmarks.speed.training.systems import System
from recsys.metrics.pointwise import auc

Aucs = dict[str, dict[str, dict[str, dict[str, float]]]]
"""System -> batch size -> seed -> task -> AUC."""
ITEM: int = 1
"""The column of the trivial rule."""


def measure_aucs(
    entrants: Mapping[int, Sequence[System]], arrays: Path, rows: int, seeds: Sequence[int]
) -> Aucs:
    """Train every batch size's systems on every seed and score the test rows.

    Nothing is timed: they run side by side. The first system is ours, the fastest, and comes last: a core
    without work at the end is time lost.
    """
    labels_NK = read_array(arrays, "test", "labels")
    jobs = [(s, b, seed) for b, systems in entrants.items() for s in systems for seed in seeds]
    first = [systems[0] for systems in entrants.values()]
    jobs.sort(key=lambda job: job[0] in first)
    scores = [arrays / f"scores-{n}.npy" for n in range(len(jobs))]
    commands = [
        (system.epoch(arrays, rows, b, seed, place), system.paths)
        for (system, b, seed), place in zip(jobs, scores, strict=True)
    ]
    found: Aucs = {system.name: {} for systems in entrants.values() for system in systems}
    for (system, b, seed), place, _ in zip(jobs, scores, parallel_runs(commands), strict=True):
        scores_NK = np.load(place)
        aucs = {task: auc(labels_NK[:, k], scores_NK[:, k]) for k, task in enumerate(TASKS)}
        found[system.name].setdefault(str(b), {})[str(seed)] = aucs
        said = ", ".join(f"{task} {value:.4f}" for task, value in aucs.items())
        print(f"{system.name}, batch {b}, seed {seed}, AUC: {said}", file=sys.stderr, flush=True)
    return found


def check_measure(ours: System, arrays: Path, rows: int, batch_size: int) -> dict[str, Any]:
    """Ask whether the measure is right: what must be near the top, near the bottom, and at chance.

    The oracle has the probabilities that labels were drawn from; the trivial rule is the item's smoothed rate
    in the training rows; the last is ours, trained on labels that belong to other rows.
    """
    labels_NK, truth_NK = (read_array(arrays, "test", name) for name in ("labels", "truth"))
    scores = arrays / "scores-shuffled.npy"
    command = [*ours.epoch(arrays, rows, batch_size, 0, scores), "--shuffle-labels"]
    fresh_run(command, (), 1, ours.paths)
    shown = {"oracle": truth_NK, "item_rate": _item_rates(arrays), "shuffled_labels": np.load(scores)}
    return {
        name: {task: auc(labels_NK[:, k], scores_NK[:, k]) for k, task in enumerate(TASKS)}
        for name, scores_NK in shown.items()
    }


def _item_rates(arrays: Path, prior_rows: float = 20.0) -> np.ndarray:
    """Give the smoothed rate of each test row's item, [N, K]."""
    items_N, labels_NK = read_array(arrays, "train", "ids")[:, ITEM], read_array(arrays, "train", "labels")
    shown_I = np.bincount(items_N, minlength=COLUMN_SIZES[ITEM]) + prior_rows
    means_K = labels_NK.mean(axis=0)
    sums = [
        np.bincount(items_N, labels_N, COLUMN_SIZES[ITEM]) + prior_rows * mean
        for labels_N, mean in zip(labels_NK.T, means_K, strict=True)
    ]
    rates: np.ndarray = np.stack([s / shown_I for s in sums], axis=1)[
        read_array(arrays, "test", "ids")[:, ITEM]
    ]
    return rates


def mean_auc(aucs: Aucs, system: str, batch_size: str, task: str) -> float:
    """Average over seeds."""
    return statistics.fmean(of[task] for of in aucs[system][batch_size].values())


def worst_difference(aucs: Aucs, ours: str, batch_size: str) -> float | None:
    """Give the worst task's (ours - the better peer on that task), seeds averaged; None without a peer."""
    peers = [name for name, of in aucs.items() if name != ours and batch_size in of]
    if not peers or batch_size not in aucs.get(ours, {}):
        return None
    return min(
        mean_auc(aucs, ours, batch_size, task) - max(mean_auc(aucs, p, batch_size, task) for p in peers)
        for task in TASKS
    )
