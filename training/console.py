"""Nights and bundles on the terminal."""

from rich.console import Console
from rich.table import Table

from recsys.manifest import read_manifest
from recsys.registry import Registry
from training.night.night import NightResult, TrainResult


def print_night(result: NightResult, live: str | None, *, dry_run: bool) -> None:
    """Print the checks, the verdict, and what is live: an update, if the night is run again after it."""
    console = Console()
    table = Table("check", "outcome", "detail", box=None)
    for check in result.decision.checks:
        table.add_row(check.name, str(check.outcome), check.detail)
    console.print(table)
    if result.version is not None and result.version == live:
        said = f"{live} is live"
    elif result.version is None or dry_run:
        said = f"nothing went live, {live or 'nothing'} is live"
    else:
        said = f"it made {result.version}, {live or 'nothing'} is live"
    console.print(f"{result.date}: {result.verdict}, {said} ({result.seconds:.2f} s)")


def print_trained(result: TrainResult) -> None:
    """Print the version and what it was trained on."""
    losses = ", ".join(f"{name} {value:.4f}" for name, value in result.losses.items())
    Console().print(
        f"{result.version} is written and not live: {result.rows:,} rows, {result.choice}; "
        f"losses: {losses} ({result.seconds:.2f} s)",
        highlight=False,
        soft_wrap=True,
    )


def print_bundles(registry: Registry) -> None:
    """Print every version, oldest first, with the verdict of the night that made it."""
    live = registry.current()
    table = Table("version", "night", "verdict", "kind", "live", box=None)
    versions = registry.versions()
    for version in versions:
        record, manifest = registry.record(version), read_manifest(registry.path(version))
        kind = "refitted" if manifest.refitted else "evaluated"
        table.add_row(
            version,
            manifest.date,
            str(record.verdict) if record else "-",
            kind,
            "live" if version == live else "",
        )
    Console().print(table if versions else f"no bundles in {registry.bundles}; run `recsys nightly` first")
