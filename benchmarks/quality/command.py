"""`recsys bench quality` measures one set; `recsys bench tables` puts the figures into the pages."""

import importlib
import json
import subprocess
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
from benchmarks.quality.report import QualityReport
from benchmarks.quality.result_pages import fill_pages
from benchmarks.quality.tables import differences_table, rows_table
from recsys.errors import ConfigError
from recsys.options import JsonOption, put_json
from training.threads import use_threads

CHECKOUT = Path(__file__).resolve().parents[2]


def bench_quality_command(
    name: Annotated[str, typer.Option("--set", help=f"One of: {', '.join(SETS)}.")],
    data: Annotated[Path, typer.Option(help="Folder of the set's published files.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each row, seeds 0, 1, ….")] = 3,
    rows: Annotated[str, typer.Option(help="Only these rows of the table, by name: a,b,c.")] = "",
    json_file: JsonOption = None,
) -> None:
    """Train every model of a set and print what each reaches on the published test rows."""
    open_set = set_of(name)
    use_threads(1)
    console = Console(stderr=True)
    asked = [row for row in rows.split(",") if row]
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as scratch:
        found = open_set(data, Path(scratch))
        report = measure_set(found, seeds, asked, lambda line: console.print(line, highlight=False))
    chosen = f" --rows {rows}" if asked else ""
    origin = {
        "command": f"recsys bench quality --set {name} --data DIR --seeds {seeds}{chosen} --json FILE",
        "commit": _commit(),
    }
    put_json(report.as_json() | origin, json_file, lambda: _show(report))


def bench_tables_command(
    docs: Annotated[
        Path,
        typer.Option(help="Folder with benchmarks.md and benchmarks/; the JSON is in benchmarks/results."),
    ] = CHECKOUT / "docs",
) -> None:
    """Write the tables of the benchmark pages anew, from the JSON of `recsys bench quality`."""
    for page, text in fill_pages(docs).items():
        changed = page.read_text() != text
        page.write_text(text)
        print(f"{page}: {'written' if changed else 'as it was'}")


def _show(report: QualityReport) -> None:
    tables = [rows_table(report)] if report.rows else []
    tables += [differences_table(report)] if report.differences else []
    wide = _wide_enough(tables)
    for table in tables:
        wide.print(table)
    wide.print(json.dumps({"best": report.as_json()["best"]}, allow_nan=False), highlight=False)


def _commit() -> str | None:
    """Name the commit whose code runs; None outside of a checkout's git, or without git."""
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


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
