"""What all reports share: their template environment, and files that are written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from jinja2 import Environment

from recsys.errors import DataError
from recsys.files import write_whole
from recsys.metrics.table import METRICS
from recsys.report_templates import environment
from training.report.effect_plot import forest_plot
from training.report.wording import interval, signed, verdict


def report_environment(template: str) -> Environment:
    """Give what every report's templates are filled with: differences in words, metrics, the forest plot."""
    templates = environment("training.report", html=template.endswith(".html.j2"))
    templates.filters |= {"signed": signed, "interval": interval, "verdict": verdict}
    templates.globals |= {"forest_plot": forest_plot, "metrics": METRICS}
    return templates


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
