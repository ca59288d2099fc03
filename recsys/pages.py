"""HTML pages as one file without network: one style, the same number formats, written whole or not at all."""

import math
import os
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def environment(package: str, *, html: bool) -> Environment:
    """Make a template environment: a package's own `templates/`, then the shared ones (`style.css.j2`)."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("recsys")]),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"number": number, "percent": percent}
    return made


def number(value: float | None, digits: int = 4) -> str:
    """Print a count with separators, a figure with four digits, nothing as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Print a share."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def write_whole(path: Path, text: str) -> Path:
    """Write a file whole or not at all; one that is there is replaced.

    Raises: OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
