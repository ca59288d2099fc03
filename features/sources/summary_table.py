"""What a conversion did, on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from features.sources.conversion import ConversionSummary
from features.sources.to_log import Converted


def print_summary(summary: ConversionSummary, out: Path) -> None:
    """Print what was written, and what became of every row of the files, with its reason."""
    table = Table()
    table.add_column("what")
    table.add_column("rows", justify="right")
    for name, rows in summary.rows.items():
        table.add_row(f"written · {name}", f"{rows:,}", style="bold")
    for source, tally in summary.accounting.items():
        table.add_section()
        table.add_row(f"{source} · read", f"{tally.read:,}", style="bold")
        for what, reason, rows in tally.lines():
            table.add_row(f"{source} · {what}" + (f": {reason}" if reason else ""), f"{rows:,}")
    table.add_section()
    for note, rows in summary.notes.items():
        if rows:
            table.add_row(f"note · {note}", f"{rows:,}")
    console = Console()
    title = f"{summary.source} → {out}, {summary.first_day} to {summary.last_day}"
    console.print(Text(title, style="italic"), soft_wrap=True)
    console.print(table)
    for finding in summary.findings:
        severity = "accepted" if finding.accepted else finding.severity
        said = f" [{finding.code}] {finding.what}"
        console.print(Text.assemble((severity, "bold red"), said, (f"; {finding.remedy}", "dim")))


def print_next(out: Path, converted: Converted) -> None:
    """Say what to do with the log; without feedback nothing yet: the config made of it has no task."""
    if converted.config.is_relative_to(out) and not converted.summary.rows.get("feedback"):
        return
    runs = out.parent / "runs"
    print(f"what is in it:  recsys data profile {out} --out {out.parent / 'profile'}")
    night = f"--log {out} --runs {runs} --date {converted.night}"
    print(f"learn from it:  recsys nightly --config {converted.config} {night}")
