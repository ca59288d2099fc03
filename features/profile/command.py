"""`recsys data profile LOG`: what is in a log, on the terminal, as a page and as JSON."""

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from features.profile.findings import find
from features.profile.measure import measure_log
from features.profile.render import print_profile, write_profile
from recsys.config import default_config, load_config
from recsys.errors import DataError
from recsys.log import InteractionLog

_FILE_WIDTH: Final = 130


def data_profile_command(
    log: Annotated[Path, typer.Argument(help="The log's folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="A folder for profile.html and profile.json.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="A file for the figures.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="The config that the log is for; default: the log's config.toml, or the shop's."
        ),
    ] = None,
) -> None:
    """Describe a log: counts, rates, sparsity, gaps, and findings with remedies."""
    if not log.is_dir():
        raise DataError(f"{log} is not a folder; name a log, made by `recsys convert` or `recsys simulate`")
    if config is None and (log / "config.toml").is_file():
        config = log / "config.toml"
    told = default_config() if config is None else load_config(config)
    name = "the shop's config" if config is None else str(config)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("profile", total=1.0)
        measured = measure_log(
            InteractionLog(log),
            lambda what, share: progress.update(task, description=what, completed=share),
        )
    profile = measured.model_copy(update={"findings": find(measured, told, name)})
    terminal = Console()
    print_profile(profile, terminal if terminal.is_terminal else Console(width=_FILE_WIDTH))
    for path in write_profile(profile, name, out, json):
        typer.echo(f"wrote {path}")
