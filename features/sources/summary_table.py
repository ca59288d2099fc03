"""What a conversion did, on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from features.sources.conversion import ConversionSummary
from features.sources.to_log import Converted


def print_summary(summary: ConversionSummary, out: Path) -> None:
    """Print what was written, and everything that was left out, with its reason."""
    table = Table(
        title=f"{summary.source} → {out}, {summary.first_day} to {summary.last_day}", title_justify="left"
    )
    table.add_column("what")
    table.add_column("rows", justify="right")
    for name, rows in summary.rows.items():
        table.add_row(name, f"{rows:,}", style="bold")
    for title, counts in (
        ("repeats left out", summary.duplicates),
        ("quarantined", summary.quarantined),
        ("note", summary.notes),
    ):
        for reason, rows in counts.items():
            if rows:
                table.add_row(f"{title} · {reason}", f"{rows:,}")
    Console().print(table)


def print_next(out: Path, converted: Converted) -> None:
    """Say what to do with the log."""
    runs = out.parent / "runs"
    print(f"what is in it:  recsys data profile {out} --out {out.parent / 'profile'}")
    night = f"--log {out} --runs {runs} --date {converted.summary.last_day}"
    print(f"learn from it:  recsys nightly --config {converted.config} {night}")
