"""What one `recsys` command takes, in the code of a checkout: processor seconds, and memory at its peak."""

import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from recsys.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a command took."""

    seconds: float
    """Of processors, of all processes."""
    peak_mb: float
    """Of the largest process."""


def command_cost(words: Sequence[str], tree: Path, accepted: Collection[int] = (0,)) -> Cost:
    """Run `recsys WORDS` by a checkout's code to its end.

    Args: accepted: exit codes that are no failure.
    Raises: DataError with the command's last words for another one.
    """
    surroundings = {**os.environ, "PYTHONPATH": str(tree)}
    with TemporaryDirectory(prefix="recsys-said-") as folder:
        said = Path(folder) / "stderr"
        with said.open("wb") as stream:
            command = [sys.executable, "-m", "recsys", *words]
            process = subprocess.Popen(
                command, cwd=tree, env=surroundings, stdout=subprocess.DEVNULL, stderr=stream
            )
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in accepted:
            last = " | ".join(said.read_text(errors="replace").strip().splitlines()[-3:])
            raise DataError(f"recsys {' '.join(words)} ended with {process.returncode}: {last}")
    return Cost(seconds=round(used.ru_utime + used.ru_stime, 2), peak_mb=round(used.ru_maxrss / 1024, 1))
