"""`recsys data validate`: the checks of a night, alone."""

import tempfile
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from features.build import build_snapshots
from features.validation.ingest import ACCEPTED, Acceptances, Ingest, require_sound
from features.validation.report import Validation, write_report
from recsys.config import RunConfig, default_config, load_config
from recsys.errors import ConfigError, DataError
from recsys.log import InteractionLog
from recsys.stages import Stages, write_json


def data_validate_command(
    log: Annotated[Path, typer.Option("--log", help="Folder of the interaction log.")],
    day: Annotated[str, typer.Option("--date", help="The business date to check, YYYY-MM-DD.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file; default: the simulated shop's.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Runs folder whose stages are used and added to.")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the report here.")] = None,
) -> int:
    """Check one day's data as a night would: files, rules, volume, hours, labels, ids, nulls, drift, bots.

    Without --runs everything is built in a temporary folder. Exits with 3 when a night would stop.
    """
    settings = default_config() if config is None else load_config(config)
    with ExitStack() as stack:
        folder = runs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-validate-")))
        validation = validate_alone(InteractionLog(log), _date(day), settings, folder)
        report = write_report(validation, folder / "reports")
        if as_json is not None:
            write_json(as_json, validation.to_json())
        for finding in validation.findings:
            if not finding.stops:
                typer.echo(finding.line)
        shown = as_json or (report if runs else None)
        require_sound(validation, str(shown or "--json FILE writes it"))
    counts = ", ".join(f"{n} {name}" for name, n in validation.counts.items() if n)
    typer.echo(f"{day}: {counts or 'nothing found'}; a night may train on it")
    return 0


def validate_alone(log: InteractionLog, day: date, config: RunConfig, folder: Path) -> Validation:
    """Check one day; build what its checks need under a runs folder.

    Raises: DataError when the log has nothing of that day.
    """
    days = log.require_days("impressions")
    if day not in days and config.period == "P1D":
        raise DataError(f"{day} has no impressions in {log.root}, which has {days[0]} to {days[-1]}")
    stages = Stages(folder / "stages")
    accepted = Acceptances(folder / "registry" / ACCEPTED)
    ingest = Ingest(log=log, config=config, stages=stages, accepted=accepted)
    broken = ingest.check_files(day)
    if broken is not None:
        return broken
    with Progress(console=Console(stderr=True), transient=True) as progress:
        features, profiles = (progress.add_task(name) for name in ("features", "profiles"))
        chain = build_snapshots(
            log, day, config, stages, lambda n, of: progress.update(features, completed=n, total=of)
        )
        return ingest.check_days(
            chain, chain[-1].day, lambda n, of: progress.update(profiles, completed=n, total=of)
        )


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--date {text!r} is no date; write YYYY-MM-DD") from None
