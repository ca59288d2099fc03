"""`recsys report transfer`: does learning the heads together help? HTML, Markdown and JSON."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.panel import Panel

from features.build import build_snapshots
from recsys.config import load_config
from recsys.log import InteractionLog
from recsys.stages import Stages
from training.evaluation.command import parse_date
from training.night.run import check_names
from training.progress import bar
from training.report.render import open_folder
from training.report.transfer.measure import measure_transfer
from training.report.transfer.render import write_transfer
from training.report.transfer.report import TransferReport
from training.threads import use_threads

_STYLES = {"share": "green", "group": "yellow", "split": "yellow"}


def report_transfer_command(
    config: Annotated[Path, typer.Option("--config", help="TOML file of the shared model.")],
    log: Annotated[Path, typer.Option("--log", help="Folder of the interaction log.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html, report.md and report.json.")],
    day: Annotated[str, typer.Option("--date", help="The night, YYYY-MM-DD; default: the log's last.")] = "",
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each model.")] = 5,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Folder whose feature stages are used and kept.")
    ] = None,
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap draws of users and seeds.")] = 1000,
    alpha: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Error rate shared by the heads' verdicts.")
    ] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train the heads together and alone, at the same size in total, and say whether to share."""
    settings = load_config(config)
    check_names(settings)
    use_threads(settings.training.threads)
    open_folder(out)
    source = InteractionLog(log)
    night = parse_date("--date", day) if day else source.require_days("impressions")[-1]
    with tempfile.TemporaryDirectory(prefix="recsys-transfer-") as scratch:
        with bar("features") as on_period:
            stages = Stages((runs or Path(scratch)) / "stages")
            chain = build_snapshots(source, night, settings, stages, on_period)
        first = settings.training.seed
        with bar("trainings") as on_progress:
            report = measure_transfer(
                chain,
                settings,
                range(first, first + seeds),
                replicates=replicates,
                alpha=alpha,
                on_progress=on_progress,
            )
    files = write_transfer(report, out)
    if as_json:
        print(report.model_dump_json(indent=1))
    else:
        _print(report, files)


def _print(report: TransferReport, files: list[Path]) -> None:
    console = Console()
    advice = report.advice
    lines = "\n".join([advice.headline, "", *advice.reasons])
    console.print(Panel(lines, title=advice.action.upper(), style=_STYLES[advice.action]), highlight=False)
    for finding in report.findings:
        console.print(
            f"warning: {finding.what}: {finding.remedy}", style="yellow", highlight=False, markup=False
        )
    console.print("wrote " + ", ".join(str(file) for file in files), highlight=False, soft_wrap=True)
