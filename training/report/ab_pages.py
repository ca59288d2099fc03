"""ABReport -> report.html (one file, no network), report.md and report.json.

A section is one template in `templates/` and one line in SECTIONS, in the page's order.
"""

from pathlib import Path

from recsys.metrics.metric import Place
from recsys.metrics.table import METRICS
from training.report.ab_plots import day_plot, reliability_plot
from training.report.ab_report import ABReport, primary_comparisons, primary_lists
from training.report.report_files import report_environment, write_files

SECTIONS = (
    ("data", "Data and leak checks"),
    ("heads", "Heads"),
    ("lists", "Ranked lists"),
    ("off_policy", "Off-policy value"),
    ("segments", "Segments"),
    ("baselines", "Simple systems on the same rows"),
    ("method", "How to read this"),
)


def write_report(report: ABReport, out: Path) -> list[Path]:
    """Write the three files into a folder; a file that is there is replaced whole.

    Raises: DataError when the folder cannot be written.
    """
    return write_files(
        {
            "report.html": render(report, "report.html.j2"),
            "report.md": render(report, "report.md.j2"),
            "report.json": report.model_dump_json(indent=1) + "\n",
        },
        out,
    )


def render(report: ABReport, template: str) -> str:
    """Fill one template of the A/B report."""
    templates = report_environment(template)
    templates.globals |= {
        "reliability_plot": reliability_plot,
        "day_plot": day_plot,
        "sections": SECTIONS,
        "primary": primary_comparisons(report.heads, report.lists),
        "primary_lists": primary_lists(),
        "shown_in": shown_in,
    }
    return templates.get_template(template).render(report=report)


def shown_in(place: Place, values: dict[str, float | None]) -> list[str]:
    """Name the metrics of some figures that a table shows."""
    return [name for name in values if place in METRICS[name].tables]
