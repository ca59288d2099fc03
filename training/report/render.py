"""Reports -> report.html (one file, no network), report.md and report.json, each written whole or not.

A section of the A/B report is one template in `templates/` and one line in SECTIONS, in the page's order.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from jinja2 import Environment

from recsys.errors import DataError
from recsys.files import write_whole
from recsys.pages import environment
from training.evaluation.metrics import BinaryMetrics, HeadMetrics
from training.report.ab_report import ABReport, primary_comparisons
from training.report.effects import TITLES
from training.report.plots import day_plot, forest_plot, reliability_plot
from training.report.wording import interval, signed, verdict

SECTIONS = (
    ("data", "Data and leak checks"),
    ("heads", "Heads"),
    ("lists", "Ranked lists"),
    ("segments", "Segments"),
    ("baselines", "Simple systems on the same rows"),
    ("method", "How to read this"),
)
BINARY_BASELINE_COLUMNS = ("auc", "gauc", "log_loss", "ece")
REGRESSION_BASELINE_COLUMNS = ("rmse", "mae")


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


def open_folder(out: Path) -> None:
    """Make the folder of a report before the work that fills it.

    Raises: DataError when nothing can be written there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise _unwritable(out, error) from error


def write_files(texts: Mapping[str, str], out: Path) -> list[Path]:
    """Write texts by file name into a folder.

    Raises: DataError when the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [write_whole(out / name, text) for name, text in texts.items()]
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write the report to {out}: {error.strerror}; choose another --out or free the disk"
    )


def render(report: ABReport, template: str) -> str:
    """Fill one template of the A/B report."""
    templates = report_environment(template)
    templates.globals |= {
        "reliability_plot": reliability_plot,
        "day_plot": day_plot,
        "sections": SECTIONS,
        "primary": primary_comparisons(report.heads, report.lists),
        "baseline_columns": baseline_columns,
        "is_binary": lambda metrics: isinstance(metrics, BinaryMetrics),
    }
    return templates.get_template(template).render(report=report)


def report_environment(template: str) -> Environment:
    """Give what every report's templates are filled with: paired differences, titles, the forest plot."""
    templates = environment("training.report", html=template.endswith(".html.j2"))
    templates.filters |= {"signed": signed, "interval": interval, "verdict": verdict}
    templates.globals |= {"forest_plot": forest_plot, "titles": TITLES}
    return templates


def baseline_columns(metrics: HeadMetrics) -> tuple[str, ...]:
    """Name the columns of a head's table of simple systems."""
    return BINARY_BASELINE_COLUMNS if isinstance(metrics, BinaryMetrics) else REGRESSION_BASELINE_COLUMNS
