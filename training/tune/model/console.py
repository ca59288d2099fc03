"""ModelReport -> a table on the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from training.tune.model.bench import improvements
from training.tune.model.search import ModelReport


def print_model(report: ModelReport, files: Sequence[Path]) -> None:
    """Print the losses as given and found, the best trial's settings, and the files written."""
    console = Console()
    table = Table("validation loss", "as given", "best", "improvement", box=None)
    better = improvements(report.best_losses, report.baseline)
    for name, value in report.baseline.items():
        best = report.best_losses[name]
        table.add_row(name, f"{value:.5f}", f"{best:.5f}", f"{100 * better[name]:+.2f} %")
    console.print(table, highlight=False)
    line = report.best_line
    for key, setting in (line.settings if line else {}).items():
        console.print(f"  {key} = {setting}", highlight=False, markup=False)
    for note in report.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    wrote = "wrote " + ", ".join(str(file) for file in files)
    console.print(wrote, highlight=False, markup=False, soft_wrap=True)
