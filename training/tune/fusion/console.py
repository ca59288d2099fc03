"""FusionReport -> tables on the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from recsys.report_templates import number
from training.report.wording import interval, signed
from training.tune.fusion.fusion_report import FusionReport, weights_line


def print_fusion(report: FusionReport, files: Sequence[Path]) -> None:
    """Print each candidate's values against the current ones, the TOML to paste, and the files written."""
    console = Console()
    console.print(
        f"{report.version}, {report.days[0]} to {report.days[-1]}: {report.requests:,} lists, "
        f"{report.trials} trials, {len(report.front)} on the front",
        highlight=False,
    )
    for candidate in report.candidates:
        verdicts = report.verdicts(candidate)
        table = Table("value", "current", "these", "difference, 95 %", "verdict", box=None)
        for source, effects in (
            ("re-ranked", candidate.effects),
            ("off-policy", report.off_policy_effects(candidate)),
            ("truth", candidate.truth),
        ):
            for name, e in effects.items():
                difference = f"{signed(e.difference)} {interval(e)}"
                row = [number(e.a, 5), number(e.b, 5), difference, verdicts[source][name]]
                table.add_row(f"{source}: {name}", *row)
        console.print(f"\n{candidate.name}: {weights_line(candidate.fusion)}", style="bold", highlight=False)
        console.print(table, highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    console.print(f"\n{report.toml}", highlight=False, markup=False)
    wrote = "wrote " + ", ".join(str(file) for file in files)
    console.print(wrote, highlight=False, markup=False, soft_wrap=True)
