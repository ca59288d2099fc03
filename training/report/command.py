"""`recsys report ab`: two bundles on the same days, as HTML, Markdown and JSON."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.panel import Panel

from recsys.log import InteractionLog, period_end
from recsys.registry import Registry
from training.evaluation.command import load_reproducible, parse_days, snapshots
from training.predict import BundlePredictor
from training.progress import bar
from training.report.ab import Side, compare
from training.report.ab_report import ABReport
from training.report.render import write_report
from training.threads import use_threads

_STYLES = {"better": "green", "worse": "yellow", "mixed": "yellow", "not trustworthy": "red"}


def report_ab_command(
    log: Annotated[Path, typer.Option("--log", help="Folder of the interaction log.")],
    runs: Annotated[Path, typer.Option("--runs", help="Folder of bundles and registry.")],
    a: Annotated[str, typer.Option("--a", help="Version A, usually the live one.")],
    b: Annotated[str, typer.Option("--b", help="Version B.")],
    first: Annotated[str, typer.Option("--from", help="First day to compare on, YYYY-MM-DD.")],
    last: Annotated[str, typer.Option("--to", help="Last day; the log is read up to here.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html, report.md and report.json.")],
    users: Annotated[
        int, typer.Option(min=1, help="At most so many users a period get ranked lists.")
    ] = 1000,
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap draws of users.")] = 1000,
    alpha: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Error rate shared by the primary comparisons.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of users and of the draws.")] = 0,
    *,
    all_users: Annotated[bool, typer.Option("--all-users", help="Rank for every user.")] = False,
    baselines: Annotated[bool, typer.Option(help="Also score the simple systems.")] = True,
) -> None:
    """Compare two bundles on the same days: what is better, how sure that is, and what it rests on."""
    registry = Registry(runs)
    bundles = [load_reproducible(registry.require(version)) for version in (a, b)]
    use_threads(bundles[0].config.training.threads)
    days = parse_days(InteractionLog(log), first, last)
    side_a, side_b = (
        Side(predictor=BundlePredictor(bundle), chain=snapshots(bundle, log, runs, days[1]))
        for bundle in bundles
    )
    with bar("compare") as on_progress:
        report = compare(
            side_a,
            side_b,
            days[0],
            days[1],
            period_end(side_a.chain[-1].day, bundles[0].config.timezone),
            max_users=None if all_users else users,
            replicates=replicates,
            alpha=alpha,
            seed=seed,
            baselines=baselines,
            on_progress=on_progress,
        )
    files = write_report(report, out)
    _print(report, files)


def _print(report: ABReport, files: list[Path]) -> None:
    console = Console()
    decision = report.decision
    console.print(
        Panel(
            "\n".join([decision.headline, "", *decision.lines]),
            title=decision.title.upper(),
            style=_STYLES.get(decision.outcome, ""),
        ),
        highlight=False,
    )
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False)
    console.print("wrote " + ", ".join(str(file) for file in files), highlight=False, soft_wrap=True)
