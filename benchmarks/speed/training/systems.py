"""Ours and the peers as programs that make one epoch on the click log's arrays and print what they did."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.commit import CHECKOUT
from benchmarks.speed.training.click_log import COLUMN_SIZES, TASKS
from benchmarks.speed.training.peers import EPOCH, check_peers, peer_python

OURS: Final = "ours"


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


def our_system() -> System:
    """Describe ours, in this interpreter."""
    return System(OURS, (sys.executable, "-m", "benchmarks.speed.training.own_epoch"), (CHECKOUT,))


def peer_systems(names: Sequence[str]) -> list[System]:
    """Describe the peers, in their environment. Raises: ConfigError."""
    check_peers(names)
    log = ("--sizes", ",".join(map(str, COLUMN_SIZES)), "--tasks", ",".join(TASKS))
    return [System(n, (str(peer_python()), str(EPOCH), "--peer", n, *log)) for n in dict.fromkeys(names)]
