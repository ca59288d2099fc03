"""Ours and the peers as programs that make one epoch on the click log's arrays and print what they did."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.commit import CHECKOUT
from benchmarks.speed.fresh_run import fresh_run
from benchmarks.speed.training.click_log import COLUMN_SIZES, TASKS
from benchmarks.speed.training.peers import EPOCH, check_peers, peer_python

OURS: Final = "ours"
Rates = dict[str, float]
"""Precision and processes -> samples a second."""


@dataclass(frozen=True, slots=True)
class System:
    """What is started, and the folders that it imports from."""

    name: str
    program: tuple[str, ...]
    paths: tuple[Path, ...] = ()

    def epoch(
        self, arrays: Path, rows: int, batch_size: int, seed: int, scores: Path | None = None
    ) -> list[str]:
        """Give the command line of one epoch. Args: scores: where to write the test rows' scores."""
        asked = ["--arrays", arrays, "--rows", rows, "--batch", batch_size, "--seed", seed]
        return [*self.program, *map(str, asked), *([] if scores is None else ["--scores", str(scores)])]


def our_system(precision: str = "fp32", processes: int = 1) -> System:
    """Describe ours, in this interpreter.

    Args: processes: of one thread each; one process has as many threads as there are cores.
    """
    how = ("--precision", precision, "--processes", str(processes))
    return System(OURS, (sys.executable, "-m", "benchmarks.speed.training.own_epoch", *how), (CHECKOUT,))


def fastest_of_ours(arrays: Path, rows: int, batch_size: int, cores: Sequence[int]) -> tuple[System, Rates]:
    """Choose precision and processes by a short epoch of each, as a night does; give the rates of all."""
    forms = [(p, n) for p in ("fp32", "bf16") for n in (1, len(cores))]
    systems = {f"{p}, {n} process{'es' if n > 1 else ''}": our_system(p, n) for p, n in forms}
    rates: Rates = {}
    for name, system in systems.items():
        report = fresh_run(system.epoch(arrays, rows, batch_size, 0), cores, len(cores), system.paths).report
        rates[name] = report["rows"] / report["seconds"]
        print(f"{OURS} with {name}: {rates[name]:,.0f} samples/s", file=sys.stderr, flush=True)
    return systems[max(rates, key=rates.__getitem__)], rates


def in_one_process(system: System) -> System:
    """Give ours for epochs that run side by side: one process each, of the same precision."""
    program = list(system.program)
    program[program.index("--processes") + 1] = "1"
    return replace(system, program=tuple(program))


def peer_systems(names: Sequence[str]) -> list[System]:
    """Describe the peers, in their environment. Raises: ConfigError."""
    check_peers(names)
    log = ("--sizes", ",".join(map(str, COLUMN_SIZES)), "--tasks", ",".join(TASKS))
    return [System(n, (str(peer_python()), str(EPOCH), "--peer", n, *log)) for n in dict.fromkeys(names)]
