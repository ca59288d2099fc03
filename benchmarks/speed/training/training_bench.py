"""`recsys bench train`: ours beside the peers on one log, and the product model beside an earlier commit.

Speed is the median of alternating runs in fresh processes; AUC is of longer runs; the floor is arithmetic
over rates measured in the same run. A figure that found no quiet machine is null; `not_measured` says why.
"""

import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.commit import CHECKOUT, commit
from benchmarks.speed.fresh_run import ALLOCATOR, MAX_OTHER_CORES, cpu_name, keep_to_cores, quiet_run
from benchmarks.speed.training.click_log import COLUMN_SIZES, write_click_log
from benchmarks.speed.training.product_parts import measure_parts
from benchmarks.speed.training.product_speed import NOW, measure_product, ratios
from benchmarks.speed.training.ranking import check_measure, measure_aucs, worst_difference
from benchmarks.speed.training.systems import OURS, our_system, peer_systems
from benchmarks.speed.training.throughput import Figures, measure_throughput, median_of
from features.definitions import read_config

TEST_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to measure."""

    peers: Sequence[str] = ()
    before: str | None = None
    """A commit whose product model is timed beside today's."""
    batch_sizes: Sequence[int] = (2048, 8192)
    rows: int = 400_000
    """Of a timed epoch."""
    auc_rows: int = 2_000_000
    """Of an epoch that is scored; 0: none is."""
    seeds: int = 1
    repeats: int = 3
    seed: int = 20_261_122
    """Of the log."""
    bench_model: bool = True
    product: bool = True
    config: Path | None = None
    log: Path | None = None


def measure_training(asked: Asked) -> dict[str, Any]:
    """Make all runs; give the tree of the JSON.

    Raises: ConfigError when a peer's environment or the worktree cannot be made; DataError when a run fails.
    """
    began, cores = time.perf_counter(), keep_to_cores()
    systems = [our_system(), *peer_systems(asked.peers)] if asked.bench_model else []
    tree: dict[str, Any] = {"command": shlex.join(["recsys", *sys.argv[1:]]), "commit": commit()}
    tree |= {
        "cpu": cpu_name(),
        "cores": len(cores),
        "allocator": ALLOCATOR,
        "max_other_cores": MAX_OTHER_CORES,
    }
    if asked.bench_model:
        tree |= _bench_model(asked, systems, cores)
    if asked.product:
        tree["product_parts"] = measure_parts(read_config(asked.config), asked.log, asked.seed, repeats=1)
        product = measure_product(asked.config, asked.log, asked.seed, asked.repeats, asked.before, cores)
        tree["product"] = product
        tree["product_samples_per_second"] = {how: median_of(found) for how, found in product[NOW].items()}
        tree["product_ratio_to_before"] = ratios(product)
    tree["seconds"] = time.perf_counter() - began
    return tree


def _bench_model(asked: Asked, systems: Sequence[Any], cores: Sequence[int]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        arrays, rows = Path(folder), max(asked.rows, asked.auc_rows)
        write_click_log(arrays, rows, round(TEST_SHARE * rows), asked.seed)
        speed = measure_throughput(systems, arrays, asked.rows, asked.batch_sizes, asked.repeats, cores)
        precision, threads = _chosen(speed)
        program = [sys.executable, "-m", "benchmarks.speed.training.floor", precision, str(threads)]
        found = quiet_run(program, cores, paths=(CHECKOUT,))
        floor = {"not_measured": "no quiet machine"} if found is None else found.report
        aucs, sanity = {}, {}
        if asked.auc_rows:
            ours, *peers = systems
            aucs = measure_aucs(ours, peers, arrays, asked.auc_rows, asked.batch_sizes, asked.seeds, cores)
            sanity = check_measure(ours, arrays, asked.rows, asked.batch_sizes[0], cores)
    return keys_of(asked, speed, floor, aucs) | {
        "rows": asked.rows,
        "auc_rows": asked.auc_rows,
        "columns": COLUMN_SIZES,
        "systems": speed,
        "floor": floor,
        "auc": aucs,
        "sanity_auc": sanity,
    }


def _chosen(speed: Figures) -> tuple[str, int]:
    """Say what ours ran with: its precision and its threads in all."""
    ran = next((of for of in speed[OURS].values() if "not_measured" not in of), None)
    return ("fp32", 1) if ran is None else (ran["precision"], ran["threads"] * ran["processes"])


def keys_of(asked: Asked, speed: Figures, floor: dict[str, Any], aucs: Any) -> dict[str, Any]:
    """Give the figures that are asked for by name, each by batch size."""
    keys: dict[str, dict[str, float | None]] = {}
    for size in map(str, asked.batch_sizes):
        ours = median_of(speed[OURS][size])
        peers = [median_of(speed[name][size]) for name in speed if name != OURS]
        best = max((p for p in peers if p is not None), default=None)
        known = ours is not None and best is not None and None not in peers
        least = floor.get("rows_per_second")
        given = {
            "samples_per_second": ours,
            "ratio_to_best_peer": ours / best if known else None,  # type: ignore[operator]
            "auc_minus_best_peer": worst_difference(aucs, OURS, size) if aucs else None,
            "floor_share": ours / least if ours is not None and least else None,
            "peak_rss_mb": speed[OURS][size].get("peak_rss_mb"),
        }
        for name, value in given.items():
            keys.setdefault(name, {})[size] = value
    return {**keys, "not_measured": _gaps(speed)}


def _gaps(speed: Figures) -> list[str]:
    return [
        f"{name}, batch {size}: {figures['not_measured']}"
        for name, of in speed.items()
        for size, figures in of.items()
        if "not_measured" in figures
    ]
