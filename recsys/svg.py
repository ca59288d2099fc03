"""Shapes of plots as inline SVG with CSS classes: small, without network, readable in dark mode."""

import math
from collections.abc import Sequence

from markupsafe import Markup, escape


def nice(value: float) -> float:
    """Round up to 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if value <= step * power * (1 + 1e-9))


def text(x: float, y: float, said: str, anchor: str, kind: str = "") -> str:
    """Place a text; anchor is start, middle or end; kind a class of the style."""
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def line(start: tuple[float, float], stop: tuple[float, float], kind: str) -> str:
    """Draw a straight line from (x, y) to (x, y)."""
    (x1, y1), (x2, y2) = start, stop
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def path(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Draw a line through points (x, y); nothing without points."""
    steps = " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path class="{kind}" d="M{steps}"/>' if points else ""


def svg(width: float, height: float, body: str, title: str) -> Markup:
    """Close a drawing; a screen reader reads its title."""
    opening = (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
    )
    return Markup(f'{opening}aria-label="{escape(title)}">{body}</svg>')
