"""RecTools' SASRec and its eSASRec-like form, trained beside ours on the same sequences.

Each has the defaults of the package but for what `rectools_lists.MODELS` says, sequences of 50 as ours, and
as many epochs as its own validation loss asks for. Source: Klenitskiy et al., RecSys 2025 (eSASRec).
"""

import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.peer_environment import peer_python
from benchmarks.quality.models.next_items import PLACES, Part, Ranked
from benchmarks.quality.quality_set import Row, Run
from recsys.errors import DataError

NAMES: Final = ("rectools_sasrec", "rectools_esasrec")
"""Rows, as `rectools_lists.MODELS` names them."""
REQUIREMENTS: Final = Path(__file__).with_name("rectools_requirements.txt")
SCRIPT: Final = Path(__file__).with_name("rectools_lists.py")


def rectools_rows(test: Part) -> dict[str, Row]:
    """Give the peer's rows; they are trained where `--peer rectools` or `--rows` asks for them."""
    return {name: Row(partial(_run, name, test), ours=False, on_request=True) for name in NAMES}


def _run(name: str, test: Part, seed: int) -> Run:
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        asked, answered = Path(folder) / "asked.npz", Path(folder) / "answered.npz"
        write_events(asked, test)
        # -I: nothing of ours is found, neither by PYTHONPATH nor beside the script.
        peer = [str(peer_python(REQUIREMENTS)), "-I", str(SCRIPT), "--model", name, "--seed", str(seed)]
        call(name, [*peer, "--data", str(asked), "--out", str(answered)], folder)
        with np.load(answered) as found:
            lists, epochs = found["lists"], int(found["epochs"])
            cpu_s, peak_mb = float(found["cpu_s"]), float(found["peak_mb"])
    note = f"{epochs} epochs; train and choose {cpu_s:.0f} s of processor time, peak {peak_mb:,.0f} MB"
    costs = {"train_cpu_s": cpu_s, "peak_mb": peak_mb}
    return Run(validation={}, test=ranked(lists, test).outputs(test), note=note, costs=costs)


def write_events(path: Path, test: Part) -> None:
    """Write what the script reads; a tested user's last known event is the validation item."""
    held = np.zeros(test.known.items.size, bool)
    held[test.known.starts[test.users + 1] - 1] = True
    np.savez(path, users=test.known.users, items=test.known.items, held=held, tested=test.users)


def ranked(lists: np.ndarray, test: Part) -> Ranked:
    """Find the wanted items in lists [V, K]; one behind the K-th place counts as missed, in MRR too."""
    there = lists == test.wanted[:, None]
    return Ranked(ranks=np.where(there.any(axis=1), there.argmax(axis=1), -1), first=lists[:, :PLACES])


def call(row: str, command: Sequence[str], folder: str) -> None:
    """Run the peer of a row in a folder, where it may leave what it likes.

    Raises: DataError with its last words.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        remedy = "leave --peer out, or name other rows with --rows"
        raise DataError(f"row {row!r}: the peer ended with {done.returncode}: {words}; {remedy}")
