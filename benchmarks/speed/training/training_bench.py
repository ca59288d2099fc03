"""`recsys bench train`: ours beside the peers on one log, and the product model beside an earlier commit.

Speed is the median of alternating runs in fresh processes; AUC is of longer runs; the floor is arithmetic
over rates measured in the same run. A figure that found no quiet machine is null; `not_measured` says why.
Parts can be measured one by one into the same JSON; what is divided by what is always of one run.
"""

import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.commit import CHECKOUT, commit
from benchmarks.speed.fresh_run import ALLOCATOR, MAX_OTHER_CORES, cpu_name, keep_to_cores, quiet_run
from benchmarks.speed.training.click_log import write_click_log
from benchmarks.speed.training.product_parts import measure_parts
from benchmarks.speed.training.product_speed import NOW, measure_product, ratios
from benchmarks.speed.training.ranking import check_measure, measure_aucs, worst_difference
from benchmarks.speed.training.systems import OURS, System, fastest_of_ours, in_one_process, peer_systems
from benchmarks.speed.training.throughput import Figures, measure_throughput, median_of
from features.definitions import read_config

TEST_SHARE: Final = 0.1
CHOICE_ROWS: Final = 65_536
"""Of the short epochs that choose precision and processes."""


PARTS: Final = ("speed", "auc", "product")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to measure."""

    parts: Sequence[str] = PARTS
    """speed and auc are of the synthetic log; product is the product model."""
    peers: Sequence[str] = ()
    before: str | None = None
    """A commit whose product model is timed beside today's."""
    batch_sizes: Sequence[int] = (2048, 8192)
    rows: int = 400_000
    """Of a timed epoch."""
    auc_rows: int = 2_000_000
    """Of an epoch that is scored."""
    seeds: int = 1
    repeats: int = 3
    seed: int = 20_261_122
    """Of the log."""
    config: Path | None = None
    log: Path | None = None


def measure_training(asked: Asked) -> dict[str, Any]:
    """Make all runs; give the tree of the JSON.

    Raises: ConfigError when a peer's environment or the worktree cannot be made; DataError when a run fails.
    """
    began, cores = time.perf_counter(), keep_to_cores()
    tree: dict[str, Any] = {"cpu": cpu_name(), "cores": len(cores), "allocator": ALLOCATOR}
    tree |= {"max_other_cores": MAX_OTHER_CORES, "commit": commit()}
    if set(asked.parts) & {"speed", "auc"}:
        peers = peer_systems(asked.peers)
        rows = max([asked.rows, asked.auc_rows] if "auc" in asked.parts else [asked.rows])
        with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
            write_click_log(Path(folder), rows, round(TEST_SHARE * rows), asked.seed)
            ours, rates = fastest_of_ours(Path(folder), CHOICE_ROWS, asked.batch_sizes[0], cores)
            tree["choice"] = rates
            if "speed" in asked.parts:
                tree |= _speed(asked, [ours, *peers], Path(folder), cores)
            if "auc" in asked.parts:
                tree |= _auc(asked, [in_one_process(ours), *peers], Path(folder))
    if "product" in asked.parts:
        tree |= _product(asked, cores)
    return tree | {"runs": [{"command": _command(), "seconds": time.perf_counter() - began}]}


def _command() -> str:
    return shlex.join(["recsys", *sys.argv[1:]])


def _speed(asked: Asked, systems: Sequence[System], arrays: Path, cores: Sequence[int]) -> dict[str, Any]:
    speed = measure_throughput(systems, arrays, asked.rows, asked.batch_sizes, asked.repeats, cores)
    precision, threads = _chosen(speed)
    program = [sys.executable, "-m", "benchmarks.speed.training.floor", precision, str(threads)]
    found = quiet_run(program, cores, paths=(CHECKOUT,))
    floor = {"not_measured": "no quiet machine"} if found is None else found.report
    return speed_keys(speed, floor) | {"rows": asked.rows, "systems": speed, "floor": floor}


def _chosen(speed: Figures) -> tuple[str, int]:
    """Say what ours ran with: its precision and its threads in all."""
    ran = next((of for of in speed[OURS].values() if "not_measured" not in of), None)
    return ("fp32", 1) if ran is None else (ran["precision"], ran["threads"] * ran["processes"])


def speed_keys(speed: Figures, floor: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is asked for by name, each by batch size; null where a run of it was not quiet."""
    keys: dict[str, Any] = {}
    for size, figures in speed[OURS].items():
        ours = median_of(figures)
        peers = [median_of(of[size]) for name, of in speed.items() if name != OURS]
        whole = ours is not None and bool(peers) and None not in peers
        least = floor.get("rows_per_second")
        given = {
            "samples_per_second": ours,
            "ratio_to_best_peer": ours / max(p for p in peers if p) if whole and ours else None,
            "floor_share": ours / least if ours and least else None,
            "peak_rss_mb": figures.get("peak_rss_mb"),
        }
        for name, value in given.items():
            keys.setdefault(name, {})[size] = value
    return keys | {"not_measured": _gaps(speed)}


def _auc(asked: Asked, systems: Sequence[System], arrays: Path) -> dict[str, Any]:
    aucs = measure_aucs(systems, arrays, asked.auc_rows, asked.batch_sizes, asked.seeds)
    return {
        "auc_minus_best_peer": {str(b): worst_difference(aucs, OURS, str(b)) for b in asked.batch_sizes},
        "auc_rows": asked.auc_rows,
        "auc": aucs,
        "sanity_auc": check_measure(systems[0], arrays, asked.rows, asked.batch_sizes[0]),
    }


def _product(asked: Asked, cores: Sequence[int]) -> dict[str, Any]:
    parts = measure_parts(read_config(asked.config), asked.log, asked.seed, repeats=1)
    product = measure_product(asked.config, asked.log, asked.seed, asked.repeats, asked.before, cores)
    return {
        "product_samples_per_second": {how: median_of(found) for how, found in product[NOW].items()},
        "product_ratio_to_before": ratios(product),
        "product": product,
        "product_parts": parts,
    }


def added(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Put a run's figures beside those of earlier runs: a figure that both have is the new one."""
    both = _merged(old, new, depth=2)
    both["runs"] = [*old["runs"], *new["runs"]]
    return both | {"not_measured": _gaps(both.get("systems", {}))}


def _merged(old: Mapping[str, Any], new: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Merge down to the figures of one system at one batch size, which stay together."""
    same = {k for k in old.keys() & new.keys() if isinstance(old[k], dict) and isinstance(new[k], dict)}
    deeper = {k: _merged(old[k], new[k], depth - 1) for k in same} if depth else {}
    return {**old, **new, **deeper}


def _gaps(speed: Figures) -> dict[str, str]:
    """Name what found no quiet machine."""
    found = [(f"{name}, batch {size}", figures) for name, of in speed.items() for size, figures in of.items()]
    return {what: figures["not_measured"] for what, figures in found if "not_measured" in figures}
