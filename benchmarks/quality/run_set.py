"""Open a set by name, measure it, and say which command and commit the figures are of."""

import importlib
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.quality import SETS
from benchmarks.quality.driver import measure_set
from benchmarks.quality.quality_set import OpenSet
from benchmarks.quality.report import QualityReport
from recsys.errors import ConfigError
from training.threads import use_threads


def run_set(
    name: str, data: Path, seeds: int, asked: Sequence[str]
) -> tuple[QualityReport, dict[str, str | None]]:
    """Measure a set; news go to the terminal.

    Args: asked: rows; all when there is none.
    Returns: the report, and the command and the commit that made it.
    Raises: ConfigError on an unknown set or row.
    """
    open_set = set_of(name)
    use_threads(1)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as scratch:
        found = open_set(data, Path(scratch))
        report = measure_set(found, seeds, asked, lambda line: console.print(line, highlight=False))
    rows = f" --rows {','.join(asked)}" if asked else ""
    command = f"recsys bench quality --set {name} --data DIR --seeds {seeds}{rows} --json FILE"
    return report, {"command": command, "commit": _commit()}


def set_of(name: str) -> OpenSet:
    """Find what reads a set.

    Raises: ConfigError listing the known sets.
    """
    if name not in SETS:
        raise ConfigError(f"--set {name!r} is unknown; known: {', '.join(SETS)}")
    module, function = SETS[name].split(":")
    found: OpenSet = getattr(importlib.import_module(module), function)
    return found


def _commit() -> str | None:
    """Name the commit whose code runs; None without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
