"""Open a set by name, measure it, show it, and say which command and commit the figures are of."""

import importlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from benchmarks.commit import commit
from benchmarks.quality import SETS
from benchmarks.quality.driver import measure_set
from benchmarks.quality.quality_set import OpenSet
from benchmarks.quality.result_tables import Tree, differences_grid, rows_grid
from recsys.errors import ConfigError
from training.threads import use_threads


def run_set(
    name: str, data: Path, seeds: int | None, asked: Sequence[str], peers: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure a set; news go to the terminal.

    Args: seeds: None: as many as the set has by default; asked: rows; all when there is none; peers: whose
    rows are trained, too.
    Returns: the report's JSON, with the command and the commit that made it.
    Raises: ConfigError on an unknown set, row or peer.
    """
    open_set = set_of(name)
    use_threads(1)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as scratch:
        found = open_set(data, Path(scratch))
        seeds = seeds or found.seeds
        report = measure_set(found, seeds, asked, lambda line: console.print(line, highlight=False), peers)
    rows = f" --rows {','.join(asked)}" if asked else ""
    beside = "".join(f" --peer {peer}" for peer in peers)
    command = f"recsys bench quality --set {name} --data DIR --seeds {seeds}{rows}{beside} --json FILE"
    return report.as_json() | {"command": command, "commit": commit()}


def show_set(tree: Tree) -> None:
    """Print a set's tables, and the chosen row's figures as one line of JSON."""
    grids = [rows_grid(tree)] if tree["rows"] else []
    grids += [differences_grid(tree)] if tree["differences"] else []
    tables = []
    for titles, *lines in grids:
        tables.append(Table(*titles, box=None))
        for cells in lines:
            tables[-1].add_row(*cells)
    # Figures that are cut are none, and a file has no width.
    console = Console()
    needed = [Measurement.get(console, console.options.update(max_width=1000), t).maximum for t in tables]
    wide = Console(width=max([console.width, *needed]))
    for table in tables:
        wide.print(table)
    wide.print(json.dumps({"best": tree["best"]}, allow_nan=False), highlight=False)


def set_of(name: str) -> OpenSet:
    """Find what reads a set.

    Raises: ConfigError listing the known sets.
    """
    if name not in SETS:
        raise ConfigError(f"--set {name!r} is unknown; known: {', '.join(SETS)}")
    module, function = SETS[name].split(":")
    found: OpenSet = getattr(importlib.import_module(module), function)
    return found
