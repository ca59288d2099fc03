"""The template environment of HTML and Markdown reports: one style, the same number formats, no network."""

import math

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def environment(package: str, *, html: bool) -> Environment:
    """Make a template environment: a package's own `templates/`, then the shared ones of `recsys`."""
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
    """Format a count with separators, a figure with `digits` digits, and None or NaN as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Format a share as a percentage; None as a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"
