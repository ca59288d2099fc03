"""ABReport -> the decision's box on the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from training.report.ab_report import ABReport

_STYLES = {"better": "green", "worse": "yellow", "mixed": "yellow", "not trustworthy": "red"}


def print_decision(report: ABReport, files: Sequence[Path]) -> None:
    """Print the decision, the warnings, and the files written."""
    console = Console()
    decision = report.decision
    console.print(
        Panel(
            Text("\n".join([decision.headline, "", *decision.lines])),
            title=decision.title.upper(),
            style=_STYLES.get(decision.outcome, ""),
        ),
        highlight=False,
    )
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
    wrote = "wrote " + ", ".join(str(file) for file in files)
    console.print(wrote, highlight=False, markup=False, soft_wrap=True)
