"""Nights and bundles on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from recsys.manifest import read_manifest
from recsys.records import PowerAt
from recsys.registry import Registry, what_is_live
from recsys.retention import pins

if TYPE_CHECKING:  # bundles are listed without what a night needs
    from training.night.explain import DryRun
    from training.night.night import NightResult, StoppedNight, TrainResult


def print_night(result: "NightResult") -> None:
    """Print the checks, the verdict, and what is live."""
    console = Console(markup=False)  # rich would take "[gate]" of a remedy for a style
    table = Table("check", "outcome", "detail", box=None)
    for check in result.decision.checks:
        table.add_row(check.name, str(check.outcome), check.detail)
    console.print(table)
    for line in power_lines(result.decision.power):
        console.print(line, highlight=False, soft_wrap=True)
    if result.attempts > 1:
        console.print(f"{result.attempts} bundles were evaluated on these labels: each may pass by luck")
    now = what_is_live(result.live)
    if result.version is not None:
        said = now
    elif result.promoted is None:
        said = f"nothing went live, {now}"
    else:
        why = result.ending.reason if result.ending is not None else "it was told to stop before"
        said = f"it made {result.promoted}, {now}: {why}"
    console.print(f"{result.date}: {result.verdict}, {said} ({result.seconds:.2f} s)", soft_wrap=True)
    if result.page is not None:
        console.print(f"page: {result.page}", highlight=False, soft_wrap=True)


def power_lines(power: Sequence[PowerAt]) -> list[str]:
    """Say how often an equal model goes live, and the smallest loss that is found, by users a day."""
    lines = []
    for number, at in enumerate(power):
        losses = ", ".join(f"{name} {share:.0%}" for name, share in at.detectable.items())
        lines.append(
            f"{at.users:,} users a day{'' if number else ' (this night)'}: an equal model goes live in "
            f"{at.stated_rate:.0%} of nights; found in 9 of 10: losses of {losses or 'nothing'} of what the "
            "live bundle adds"
        )
    return lines


def print_stopped(result: "StoppedNight") -> None:
    """Print how far a night went."""
    Console(markup=False).print(
        f"{result.date}: stopped after {result.stopped_after}, nothing went live ({result.seconds:.2f} s)",
        soft_wrap=True,
    )


def print_dry_run(planned: "DryRun") -> None:
    """Print what each stage of a night would do, and why."""
    for stage in planned.stages:
        print(f"{planned.date} {stage.stage:<13}{stage.does:<5}{stage.why}")


def print_trained(result: "TrainResult") -> None:
    """Print the version and what it was trained on."""
    losses = ", ".join(f"{name} {value:.4f}" for name, value in result.losses.items())
    Console(markup=False).print(
        f"{result.version} is written and not live: {result.rows:,} rows, {result.choice}; "
        f"losses: {losses} ({result.seconds:.2f} s)",
        highlight=False,
        soft_wrap=True,
    )


def print_bundles(registry: Registry) -> None:
    """Print every version, oldest first: the verdict of the night that made it; live, rolled back, pinned."""
    live, barred, pinned = registry.current(), registry.activations.barred(), pins(registry)
    table = Table("version", "night", "verdict", "kind", "state", box=None)
    versions = registry.versions()
    for version in versions:
        record, manifest = registry.record(version), read_manifest(registry.path(version))
        kind = "refitted" if manifest.refitted else "evaluated"
        state = {"live": version == live, "rolled back": version in barred, "pinned": version in pinned}
        table.add_row(
            version,
            manifest.date,
            str(record.verdict) if record else "-",
            kind,
            ", ".join(name for name, holds in state.items() if holds),
        )
    Console(markup=False).print(
        table if versions else f"no bundles in {registry.bundles}; run `recsys nightly` first"
    )
