"""`recsys bench train`: ours beside the peers on one log, and the product model beside an earlier commit.

Speed is the median of alternating runs in fresh processes; AUC is of longer runs; the floor is arithmetic
over rates measured in the same run. A figure that found no quiet machine says so (`noisy`); one that was not
asked for is null, and `not_measured` says why. Parts can be measured one by one into the same JSON; what is
divided by what is always of one run.
"""

import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from benchmarks.commit import CHECKOUT, commit
from benchmarks.speed.fresh_run import (
    ALLOCATOR,
    MAX_OTHER_CORES,
    Patience,
    cpu_name,
    keep_to_cores,
    quiet_run,
)
from benchmarks.speed.training.click_log import write_click_log
from benchmarks.speed.training.data_memory import MEMORY_ROWS, measure_memory
from benchmarks.speed.training.first_night import measure_first_night
from benchmarks.speed.training.precision_quality import measure_precision
from benchmarks.speed.training.product_parts import measure_parts
from benchmarks.speed.training.product_speed import (
    SHAPES,
    Programs,
    measure_product,
    measure_product_processes,
    product_programs,
)
from benchmarks.speed.training.profile_part import measure_profile
from benchmarks.speed.training.ranking import check_measure, measure_aucs
from benchmarks.speed.training.systems import (
    OURS,
    PRECISIONS,
    Rates,
    System,
    fastest_of_ours,
    in_one_process,
    our_system,
    peer_systems,
)
from benchmarks.speed.training.throughput import measure_throughput
from benchmarks.speed.training.training_keys import named_keys
from features.definitions import read_config
from recsys.errors import ConfigError
from recsys.simulator.dials import ShopDials

TEST_SHARE: Final = 0.1
CHOICE_ROWS: Final = 65_536
"""Of the short epochs that choose precision and processes."""
SANITY_ROWS: Final = 200_000
"""Of the epoch on labels of other rows."""
PATIENCE_S: Final = 60.0
"""For runs that are made again because others disturbed them: all parts together."""
DEFAULT_PARTS: Final = ("speed", "auc", "product")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to measure."""

    parts: Sequence[str] = DEFAULT_PARTS
    peers: Sequence[str] = ()
    before: str | None = None
    """A commit whose product model is timed beside today's."""
    batch_sizes: Sequence[int] = (2048, 8192)
    rows: int = 400_000
    """Of a timed epoch."""
    auc_rows: int = 2_000_000
    """Of an epoch that is scored."""
    seeds: Sequence[int] = (0,)
    repeats: int = 3
    precision: str = "auto"
    """Of ours on the synthetic log."""
    seed: int = 20_261_122
    """Of the log."""
    config: Path | None = None
    log: Path | None = None
    patience: Patience = field(default_factory=lambda: Patience(PATIENCE_S))


def measure_training(asked: Asked) -> dict[str, Any]:
    """Make all runs; give the tree of the JSON.

    Raises: ConfigError for a part that there is not, or when a peer's environment or the worktree cannot be
    made; DataError when a run fails.
    """
    for part in asked.parts:
        if part not in PARTS:
            raise ConfigError(f"--part {part!r} is not known; choose of: {', '.join(PARTS)}")
    began, cores = time.perf_counter(), keep_to_cores()
    tree: dict[str, Any] = {"cpu": cpu_name(), "cores": len(cores), "allocator": ALLOCATOR}
    tree |= {"max_other_cores": MAX_OTHER_CORES, "commit": commit()}
    tree["batch_sizes"] = [str(size) for size in asked.batch_sizes]
    seconds: dict[str, float] = {}
    for part in dict.fromkeys(asked.parts):
        started = time.perf_counter()
        tree |= PARTS[part](asked, cores)
        seconds[part] = time.perf_counter() - started
    run = {"command": _command(), "commit": tree["commit"], "seconds": time.perf_counter() - began}
    tree["runs"] = [run | {"seconds_by_part": seconds}]
    return tree | named_keys(tree)


def _command() -> str:
    """Give what was typed, with FILE for the JSON's place: that is of one machine."""
    words = ["recsys", *sys.argv[1:]]
    return shlex.join("FILE" if before == "--json" else word for before, word in pairwise(["", *words]))


@contextmanager
def _click_log(asked: Asked, rows: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        write_click_log(Path(folder), rows, round(TEST_SHARE * rows), asked.seed)
        yield Path(folder)


def _speed(asked: Asked, cores: Sequence[int]) -> dict[str, Any]:
    peers = peer_systems(asked.peers)
    choice: dict[str, Rates] = {}
    entrants: dict[int, Sequence[System]] = {}
    floors: dict[str, Any] = {}
    with _click_log(asked, asked.rows) as arrays:
        for size in asked.batch_sizes:
            ours, choice[str(size)] = fastest_of_ours(
                arrays, CHOICE_ROWS, size, cores, asked.precision, asked.patience
            )
            entrants[size] = [ours, *peers]
        speed = measure_throughput(entrants, arrays, asked.rows, asked.repeats, cores, asked.patience)
    known: dict[tuple[str, int], dict[str, Any]] = {}
    for name, ran in speed[OURS].items():
        how = (ran["precision"], ran["threads"] * ran["processes"])
        if how not in known:
            program = [sys.executable, "-m", "benchmarks.speed.training.floor", *map(str, how)]
            known[how] = quiet_run(program, cores, asked.patience, paths=(CHECKOUT,)).report
        floors[name] = known[how]
    return {"rows": asked.rows, "choice": choice, "systems": speed, "floor": floors}


def _auc(asked: Asked, cores: Sequence[int]) -> dict[str, Any]:
    peers = peer_systems(asked.peers)
    entrants: dict[int, Sequence[System]] = {}
    with _click_log(asked, asked.auc_rows) as arrays:
        for size in asked.batch_sizes:
            ours = our_system(asked.precision)
            if asked.precision == "auto":
                chosen = fastest_of_ours(arrays, CHOICE_ROWS, size, cores, asked.precision, asked.patience)
                ours = in_one_process(chosen[0])
            entrants[size] = [ours, *peers]
        found: dict[str, Any] = {"auc_rows": asked.auc_rows}
        found["auc"] = measure_aucs(entrants, arrays, asked.auc_rows, asked.seeds)
        if 0 in asked.seeds:
            first, rows = asked.batch_sizes[0], min(SANITY_ROWS, asked.auc_rows)
            found["sanity_auc"] = check_measure(entrants[first][0], arrays, rows, first)
    return found


def _product(asked: Asked, cores: Sequence[int]) -> dict[str, Any]:
    with _programs(asked, asked.before, cores) as programs:
        return measure_product(programs, asked.repeats)


def _profile(asked: Asked, cores: Sequence[int]) -> dict[str, Any]:
    """Profile the product model's step by shape, today's and an earlier commit's."""
    with _programs(asked, asked.before, cores) as programs:
        return measure_profile(programs)


def _stages(asked: Asked, cores: Sequence[int]) -> dict[str, Any]:
    """Time a day's snapshots, encoding, cutting and fit apart, with the floor of the fit."""
    del cores
    return {"product_parts": measure_parts(read_config(asked.config), asked.log, asked.seed, repeats=3)}


def _programs(asked: Asked, before: str | None, cores: Sequence[int]) -> AbstractContextManager[Programs]:
    return product_programs(asked.config, asked.log, asked.seed, before, cores, asked.patience)


def _processes(asked: Asked, cores: Sequence[int]) -> dict[str, Any]:
    """Time one process beside several, in the precision that is asked for."""
    precision = "fp32" if asked.precision == "auto" else asked.precision
    forms = [replace(our_system(precision, n, threads), name=name) for name, (n, threads) in SHAPES.items()]
    entrants = dict.fromkeys(asked.batch_sizes, forms)
    with _click_log(asked, asked.rows) as arrays:
        found = measure_throughput(entrants, arrays, asked.rows, asked.repeats, cores, asked.patience)
    with _programs(asked, None, cores) as programs:
        product = measure_product_processes(programs, precision, asked.repeats)
    return {"processes": {"synthetic log": found, "product model": product}}


def _precision(asked: Asked, cores: Sequence[int]) -> dict[str, Any]:
    """Score ours in both precisions, on the first batch size, over the seeds; and the product model."""
    del cores
    forms = [replace(our_system(precision), name=precision) for precision in PRECISIONS]
    with _click_log(asked, asked.auc_rows) as arrays:
        aucs = measure_aucs({asked.batch_sizes[0]: forms}, arrays, asked.auc_rows, asked.seeds)
    product = measure_precision(read_config(asked.config), asked.log, asked.seed, asked.seeds)
    return {"precision": {"synthetic log": aucs, "product model": product}}


def _memory(asked: Asked, cores: Sequence[int]) -> dict[str, Any]:
    del asked, cores
    return {"memory": {str(rows): measure_memory(rows) for rows in MEMORY_ROWS}}


def _night(asked: Asked, cores: Sequence[int]) -> dict[str, Any]:
    return {"night": measure_first_night(ShopDials(), asked.repeats, asked.before, cores, asked.patience)}


PARTS: Final = {
    "speed": _speed,
    "auc": _auc,
    "product": _product,
    "profile": _profile,
    "stages": _stages,
    "processes": _processes,
    "precision": _precision,
    "memory": _memory,
    "night": _night,
}
"""speed and auc are of the synthetic log, product of the product model; the others are not in every run."""


def added(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Put a run's figures beside those of earlier runs: a figure that both have is the new one."""
    both = {**old, **new}
    for key, depth in {"systems": 1, "auc": 2, "floor": 0, "choice": 0}.items():
        if key in old and key in new:
            both[key] = _merged(old[key], new[key], depth)
    both["batch_sizes"] = sorted({*old["batch_sizes"], *new["batch_sizes"]}, key=int)
    both["runs"] = [*old["runs"], *new["runs"]]
    return both | named_keys(both)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Merge mappings of mappings; what lies below the depth stays together."""
    deeper = {key: _merged(old[key], new[key], depth - 1) for key in old.keys() & new.keys()} if depth else {}
    return {**old, **new, **deeper}
