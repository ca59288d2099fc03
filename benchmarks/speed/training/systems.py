"""Ours and the peers as programs that make one epoch on the click log's arrays and print what they did."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from benchmarks.commit import CHECKOUT
from benchmarks.peer_environment import peer_python
from benchmarks.speed.fresh_run import Patience, quiet_run
from benchmarks.speed.training.click_log import COLUMN_SIZES, TASKS
from benchmarks.speed.training.peers import EPOCH, REQUIREMENTS, check_peers
from recsys.device import CPU, has_fast_bf16
from training.host_choice import MIN_GAIN

T = TypeVar("T")
OURS: Final = "ours"
PRECISIONS: Final = ("fp32", "bf16")
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


def our_system(precision: str = "fp32", processes: int = 1, threads: int | None = None) -> System:
    """Describe ours, in this interpreter.

    Args: processes: of one thread each; threads: of one process, default as many as there are cores.
    """
    how = ["--precision", precision, "--processes", str(processes)]
    how += [] if threads is None else ["--threads", str(threads)]
    return System(OURS, (sys.executable, "-m", "benchmarks.speed.training.own_epoch", *how), (CHECKOUT,))


def fastest_of_ours(
    arrays: Path, rows: int, batch_size: int, cores: Sequence[int], precision: str, patience: Patience
) -> tuple[System, Rates]:
    """Choose the precision in one process, then the processes, by a short epoch of each, as a night does.

    Args: precision: auto, or the one to take. Returns: the system, and the rates of all that was tried.
    """
    rates: Rates = {}

    def rate(form: tuple[str, int]) -> float:
        name = f"{form[0]}, {form[1]} process{'es' if form[1] > 1 else ''}"
        if name not in rates:
            system = our_system(*form)
            run = quiet_run(system.epoch(arrays, rows, batch_size, 0), cores, patience, paths=system.paths)
            rates[name] = run.report["rows"] / run.report["seconds"]
            print(
                f"{OURS}, batch {batch_size}, {name}: {rates[name]:,.0f} samples/s",
                file=sys.stderr,
                flush=True,
            )
        return rates[name]

    best = ("fp32" if precision == "auto" else precision, 1)
    if precision == "auto" and has_fast_bf16(CPU):
        best = clearly_faster(("bf16", 1), best, rate)
    return our_system(*clearly_faster((best[0], len(cores)), best, rate)), rates


def clearly_faster(other: T, than: T, rate: Callable[[T], float]) -> T:
    """Take the simpler form unless the other one wins by what is more than noise, as a night does."""
    return other if rate(other) > MIN_GAIN * rate(than) else than


def in_one_process(system: System) -> System:
    """Give ours for epochs that run side by side: one process each, of the same precision."""
    program = list(system.program)
    program[program.index("--processes") + 1] = "1"
    return replace(system, program=tuple(program))


def peer_systems(names: Sequence[str]) -> list[System]:
    """Describe the peers, in their environment. Raises: ConfigError."""
    check_peers(names)
    log = ("--sizes", ",".join(map(str, COLUMN_SIZES)), "--tasks", ",".join(TASKS))
    return [
        System(n, (str(peer_python(REQUIREMENTS)), str(EPOCH), "--peer", n, *log))
        for n in dict.fromkeys(names)
    ]
