"""`recsys bench quality --set NAME --data DIR`: one set's table, on the terminal and as JSON."""

import importlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from benchmarks.quality import SETS
from benchmarks.quality.driver import measure_set
from benchmarks.quality.quality_set import OpenSet
from benchmarks.quality.tables import differences_table, rows_table
from recsys.errors import ConfigError
from recsys.stages import require_place, write_json
from training.threads import use_threads


def bench_quality_command(
    name: Annotated[str, typer.Option("--set", help=f"One of: {', '.join(SETS)}.")],
    data: Annotated[Path, typer.Option(help="Folder of the set's published files.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row, seeds 0, 1, ….")] = 3,
    rows: Annotated[str, typer.Option(help="Only these rows of the table, by name: a,b,c.")] = "",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Train every model of a set and print what each reaches on the published test rows."""
    require_place(json_file)
    open_set = set_of(name)
    use_threads(1)
    console = Console(stderr=True)
    asked = [row for row in rows.split(",") if row]
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as scratch:
        found = open_set(data, Path(scratch))
        report = measure_set(found, seeds, asked, lambda line: console.print(line, highlight=False))
    tables = [rows_table(report)] if report.rows else []
    tables += [differences_table(report)] if report.differences else []
    wide = _wide_enough(tables)
    for table in tables:
        wide.print(table)
    tree = report.as_json()
    wide.print(json.dumps({"best": tree["best"]}, allow_nan=False), highlight=False)
    if json_file is not None:
        write_json(json_file, tree, allow_nan=False)


def set_of(name: str) -> OpenSet:
    """Find what reads a set.

    Raises: ConfigError listing the known sets.
    """
    if name not in SETS:
        raise ConfigError(f"--set {name!r} is unknown; known: {', '.join(SETS)}")
    module, function = SETS[name].split(":")
    found: OpenSet = getattr(importlib.import_module(module), function)
    return found


def _wide_enough(tables: Sequence[Table]) -> Console:
    """Give a console on which no cell is cut: figures that are cut are none, and a file has no width."""
    console = Console()
    needed = [Measurement.get(console, console.options.update(max_width=1000), t).maximum for t in tables]
    return Console(width=max([console.width, *needed]))
