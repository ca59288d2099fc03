"""`recsys convert SOURCE SRC --out LOG`: raw files become an interaction log."""

import importlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from features.sources import FORMS, SOURCES
from features.sources.conversion import SUMMARY, ConversionSummary, Converter
from features.sources.mapped.convert import convert_mapped
from features.sources.mapped.mapping import EXAMPLE, Mapping, load_mapping
from features.sources.mapped.suggest import CONFIG, suggest_config
from recsys.errors import ConfigError
from recsys.log import InteractionLog


def convert_command(
    source: Annotated[
        str, typer.Argument(help=f"Your own files: {', '.join(FORMS)}; or a data set: {', '.join(SOURCES)}.")
    ],
    src: Annotated[
        Path | None,
        typer.Argument(help="A file, folder or quoted pattern; for a data set the folder of its files."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The log's folder; made if it is not there.")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option("--map", help="csv, parquet: the TOML that says which column is what.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="csv, parquet: name of these files in the log; others already there stay. Default: the form."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace this source's files in a log that is there already.")
    ] = False,
    example_map: Annotated[
        bool, typer.Option("--example-map", help="Print an example mapping with every key, and stop.")
    ] = False,
) -> None:
    """Turn your own files, or a public data set, into an interaction log.

    csv and parquet read what the mapping describes: `recsys convert csv --example-map > mapping.toml`. hetrec
    reads artists.dat, tags.dat, user_artists.dat, user_friends.dat, user_taggedartists.dat. kuairand reads
    interactions_*.parquet, user_features_pure.csv, video_features_basic_pure.csv and
    user_history_to_*.parquet. movielens reads latest-small (ratings.csv, movies.csv), 100k (u.data, u.item,
    u.user, or RecBole's .inter, .item, .user) or 1m (ratings.dat, movies.dat, users.dat). taobao reads
    UserBehavior*.csv. All also gzipped.
    """
    if example_map:
        typer.echo(EXAMPLE.read_text(encoding="utf-8"), nl=False)
        return
    if src is None or out is None:
        raise ConfigError(f"convert {source} needs SRC and --out: recsys convert {source} SRC --out LOG")
    if source in FORMS:
        _convert_own(source, src, out, mapping, name=name or source, force=force)
        return
    converter = load_source(source)
    if mapping is not None or name is not None:
        raise ConfigError(f"--map and --name are for {' and '.join(FORMS)}; {source} knows its files")
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
    _print_next(out, summary, f"examples/{source}.toml")


def _convert_own(
    form: str, src: Path, out: Path, mapping_file: Path | None, *, name: str, force: bool
) -> None:
    mapping = _require_mapping(form, mapping_file)
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"--name {name!r}: use letters, digits, - and _; it becomes a file name")
    # A log that holds other conversions takes one more under a new name.
    if name == form or (out / f"{SUMMARY}.{name}.json").exists():
        _require_fresh(out, force=force)
    log = InteractionLog(out)
    with _progress(Console(stderr=True)) as progress:
        task = progress.add_task(f"convert {form}", total=1.0)
        summary = convert_mapped(
            src,
            log,
            mapping,
            form=form,
            name=name,
            step=lambda what, share: progress.update(task, description=what, completed=share),
        )
        progress.update(task, description="done", completed=1.0)
    config = out / CONFIG
    if not config.exists() or force:
        config.write_text(suggest_config(log, mapping, summary), encoding="utf-8")
    print_summary(summary, out)
    _print_next(out, summary, str(config))


def load_source(name: str) -> Converter:
    """Import the converter of a source.

    Raises: ConfigError listing the known sources.
    """
    if name not in SOURCES:
        raise ConfigError(f"unknown source {name!r}; known: {', '.join((*FORMS, *SOURCES))}")
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


def _print_next(out: Path, summary: ConversionSummary, config: str) -> None:
    """Say what to do with the log."""
    runs = out.parent / "runs"
    typer.echo(f"what is in it:  recsys data profile {out} --out {out.parent / 'profile'}")
    night = f"--log {out} --runs {runs} --date {summary.last_day}"
    typer.echo(f"learn from it:  recsys nightly --config {config} {night}")


def _require_mapping(form: str, path: Path | None) -> Mapping:
    if path is None:
        typer.echo(EXAMPLE.read_text(encoding="utf-8"), nl=False)
        raise ConfigError(
            f"convert {form} needs --map FILE, which says which column of your files is what. The example "
            f"above has every key: recsys convert {form} --example-map > mapping.toml"
        )
    return load_mapping(path)


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
