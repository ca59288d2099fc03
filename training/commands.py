"""Commands of the training room: nightly and bundle. Each is a plain function with typer annotations."""

import json
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from features.store import open_store
from recsys.bundle import load_bundle, read_manifest, verify_files
from recsys.config import RunConfig, default_config, load_config, period_start
from recsys.errors import ConfigError
from recsys.log import InteractionLog
from recsys.registry import Registry

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file; default: the simulated shop's.")
]
LogOption = Annotated[Path, typer.Option("--log", help="Folder of the interaction log.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder for stages, bundles, registry and store.")]
VersionArgument = Annotated[str, typer.Argument(help="Bundle version; see `recsys bundle list`.")]


def nightly_command(
    log: LogOption,
    runs: RunsOption,
    config: ConfigOption = None,
    day: Annotated[str, typer.Option("--date", help="The night's business date, YYYY-MM-DD.")] = "",
    backfill: Annotated[str, typer.Option(help="A:B: run every night from A to B instead of one.")] = "",
    accept: Annotated[
        str,
        typer.Option(
            "--accept-findings",
            metavar="CODE[@DATE],...",
            help="Let these findings of the night's day (or of DATE) pass, in this night and later ones.",
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but go live.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per night.")] = False,
) -> int:
    """Retrain, prove the new bundle against the live one, publish or refuse.

    Exit codes: 0 PROMOTE, 10 HOLD, 11 HOLD_UNDERPOWERED (of the last night); errors have their own.
    """
    from features.validation.ingest import parse_codes
    from training.night.run import Night, run_night
    from training.threads import use_threads

    settings = _config(config)
    use_threads(settings.training.threads)
    code = 0
    for day_ in _nights(day, backfill, settings):
        night = Night(config=settings, log=InteractionLog(log), runs=runs, date=day_)
        for accepted_day, codes in parse_codes(accept, day_).items():
            night.ingest.accepted.accept(accepted_day, codes, day_)
        result = run_night(night, dry_run=dry_run)
        code = result.verdict.exit_code
        for finding in result.validation.findings:
            print(finding.line, file=sys.stderr)
        if as_json:
            print(json.dumps(result.to_json()), flush=True)
        else:
            _print_night(result.to_json(), [c.model_dump() for c in result.decision.checks], dry_run=dry_run)
    return code


def bundle_list_command(runs: RunsOption) -> None:
    """List bundle versions, oldest first, with the verdict of the night that made them."""
    registry = Registry(runs)
    live = registry.current()
    table = Table("version", "night", "verdict", "kind", "live", box=None)
    for version in registry.versions():
        record, manifest = registry.record(version), read_manifest(registry.path(version))
        kind = "refitted" if manifest.refitted else "evaluated"
        table.add_row(
            version, manifest.date, record.get("verdict", "-"), kind, "live" if version == live else ""
        )
    Console().print(
        table if registry.versions() else f"no bundles in {registry.bundles}; run `recsys nightly` first"
    )


def bundle_show_command(version: VersionArgument, runs: RunsOption) -> None:
    """Print one bundle's manifest and record as JSON."""
    registry = Registry(runs)
    manifest = read_manifest(registry.require(version))
    print(
        json.dumps(
            {"manifest": manifest.model_dump(mode="json"), "record": registry.record(version)}, indent=1
        )
    )


def bundle_verify_command(version: VersionArgument, runs: RunsOption) -> None:
    """Check every hash of a bundle and reproduce its golden requests."""
    from training.publish import verify
    from training.threads import use_threads

    registry = Registry(runs)
    path = registry.require(version)
    verify_files(path, read_manifest(path))
    bundle = load_bundle(path)
    use_threads(bundle.config.training.threads)
    found = verify(bundle, open_store(bundle.config.store, runs))
    print(
        f"{version}: {len(bundle.manifest.files)} files match, {found['requests']:.0f} golden requests "
        f"reproduced (largest difference {found['max_difference']:.1e}, at least "
        f"{found['min_retrieved_overlap']:.0%} of the retrieved items agree)"
    )


def bundle_activate_command(version: VersionArgument, runs: RunsOption) -> None:
    """Make a version live; servers pick it up by themselves."""
    registry = Registry(runs)
    before = registry.current()
    registry.activate(version)
    print(f"{version} is live (before: {before or 'nothing'})")


def bundle_rollback_command(runs: RunsOption) -> None:
    """Make the version before the live one live again."""
    registry = Registry(runs)
    before = registry.current()
    print(f"{registry.rollback()} is live again (before: {before})")


def _config(path: Path | None) -> RunConfig:
    return default_config() if path is None else load_config(path)


def _nights(day: str, backfill: str, config: RunConfig) -> list[date]:
    if bool(day) == bool(backfill):
        raise ConfigError("give either --date YYYY-MM-DD or --backfill A:B")
    if day:
        return [_date("--date", day)]
    first, _, last = backfill.partition(":")
    start, stop = _date("--backfill", first), _date("--backfill", last)
    if start > stop:
        raise ConfigError(f"--backfill {backfill}: {first} is after {last}")
    days = [start + timedelta(days=i) for i in range((stop - start).days + 1)]
    # One night per period, on the last day asked for in it.
    by_period = {period_start(d, config.period): d for d in days}
    return list(by_period.values())


def _date(flag: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{flag} {text!r} is no date; write YYYY-MM-DD") from None


def _print_night(night: dict[str, object], checks: list[dict[str, object]], *, dry_run: bool) -> None:
    console = Console()
    table = Table("check", "outcome", "detail", box=None)
    for check in checks:
        table.add_row(str(check["name"]), str(check["outcome"]), str(check["detail"]))
    console.print(table)
    said = "nothing went live" if night["version"] is None or dry_run else f"{night['version']} is live"
    console.print(f"{night['date']}: {night['verdict']}, {said} ({night['seconds']} s)")
