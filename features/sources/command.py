"""`recsys convert SOURCE SRC --out LOG`: raw files of a known data set become an interaction log."""

import importlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from features.sources import SOURCES
from features.sources.conversion import ConversionSummary, Converter
from recsys.errors import ConfigError
from recsys.log import InteractionLog


def convert_command(
    source: Annotated[str, typer.Argument(help=f"The data set: {', '.join(SOURCES)}.")],
    src: Annotated[
        Path, typer.Argument(help="The folder that holds the data set's files, plain or gzipped.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The log's folder; made if it is not there.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace this source's files in a log that is there already.")
    ] = False,
) -> None:
    """Turn a public data set into an interaction log.

    kuairand reads interactions_*.parquet, user_features_pure.csv, video_features_basic_pure.csv and
    user_history_to_*.parquet. movielens reads latest-small (ratings.csv, movies.csv), 100k (u.data, u.item,
    u.user, or RecBole's .inter, .item, .user) or 1m (ratings.dat, movies.dat, users.dat).
    """
    converter = load_source(source)
    _require_fresh(out, force=force)
    console = Console(stderr=True)
    with _progress(console) as progress:
        task = progress.add_task(f"convert {source}", total=1.0)
        summary = converter(
            src,
            InteractionLog(out),
            step=lambda what, share: progress.update(task, description=what, completed=share),
        )
        progress.update(task, description="done", completed=1.0)
    print_summary(summary, out)


def load_source(name: str) -> Converter:
    """Import the converter of a source.

    Raises: ConfigError listing the known sources.
    """
    if name not in SOURCES:
        raise ConfigError(f"unknown source {name!r}; known: {', '.join(SOURCES)}")
    module, function = SOURCES[name].split(":")
    converter: Converter = getattr(importlib.import_module(module), function)
    return converter


def print_summary(summary: ConversionSummary, out: Path) -> None:
    """Print what was written, and everything that was left out, with its reason."""
    table = Table(
        title=f"{summary.source} → {out}, {summary.first_day} to {summary.last_day}", title_justify="left"
    )
    table.add_column("what")
    table.add_column("rows", justify="right")
    for name, rows in summary.rows.items():
        table.add_row(name, f"{rows:,}", style="bold")
    for title, counts in (
        ("repeats left out", summary.duplicates),
        ("quarantined", summary.quarantined),
        ("note", summary.notes),
    ):
        for reason, rows in counts.items():
            if rows:
                table.add_row(f"{title} · {reason}", f"{rows:,}")
    Console().print(table)


def _require_fresh(out: Path, *, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")
    if out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()) and not force:
        raise ConfigError(
            f"--out {out} is not empty; give a new folder, or --force to replace this source's files in it"
        )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    )
