"""TransferReport -> the advice's box on the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from training.report.transfer.transfer_report import TransferReport

_STYLES = {"share": "green", "group": "yellow", "split": "yellow"}


def print_advice(report: TransferReport, files: Sequence[Path]) -> None:
    """Print the advice, the findings with their remedies, and the files written."""
    console = Console()
    advice = report.advice
    lines = "\n".join([advice.headline, "", *advice.reasons])
    console.print(
        Panel(Text(lines), title=advice.action.upper(), style=_STYLES[advice.action]), highlight=False
    )
    for finding in report.findings:
        console.print(
            f"warning: {finding.what}: {finding.remedy}", style="yellow", highlight=False, markup=False
        )
    wrote = "wrote " + ", ".join(str(file) for file in files)
    console.print(wrote, highlight=False, markup=False, soft_wrap=True)
