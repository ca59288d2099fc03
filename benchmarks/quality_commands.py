"""Commands of the benchmarks of quality, and the one that writes the tables of all pages."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.quality import SETS
from recsys.options import (
    JsonOption,
    put_json,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"


def bench_quality_command(
    name: Annotated[str, typer.Option("--set", help=f"One of: {', '.join(SETS)}.")],
    data: Annotated[Path, typer.Option(help="Folder of the set's published files.")],
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs of each row, seeds 0, 1, …; default: 3, of sequences 1.")
    ] = None,
    rows: Annotated[str, typer.Option(help="Only these rows of the table, by name: a,b,c.")] = "",
    peers: Annotated[
        list[str] | None,
        typer.Option(
            "--peer", help="Also train this peer's rows: rectools, of sequences; may be given again."
        ),
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """Train every model of a set and print what each reaches on the published test rows."""
    from benchmarks.quality.run_set import run_set, show_set

    tree = run_set(name, data, seeds, [row for row in rows.split(",") if row], peers or ())
    put_json(tree, json_file, lambda: show_set(tree))


def bench_inside_command(
    name: Annotated[str, typer.Option("--set", help="kuairand or shop.")],
    data: Annotated[Path, typer.Option(help="Folder of the set's published files, or of the shop's log.")],
    seeds: Annotated[int, typer.Option(min=1, help="Models, seeds 0, 1, …; figures are their means.")] = 1,
    json_file: JsonOption = None,
) -> None:
    """Say what orders the rows of a list: how much of it is the user's, and what each input adds."""
    from benchmarks.quality.inside_lists.run_diagnosis import run_diagnosis, show_diagnosis

    tree = run_diagnosis(name, data, seeds)
    put_json(tree, json_file, lambda: show_diagnosis(tree))


def bench_tables_command(
    docs: Annotated[
        Path,
        typer.Option(help="Folder with benchmarks.md and benchmarks/; the JSON is in benchmarks/results."),
    ] = DOCS,
) -> None:
    """Write the tables of the benchmark pages anew, from the JSON of the benches."""
    from benchmarks.quality.result_pages import fill_pages

    for page, text in fill_pages(docs).items():
        changed = page.read_text() != text
        page.write_text(text)
        print(f"{page}: {'written' if changed else 'as it was'}")
