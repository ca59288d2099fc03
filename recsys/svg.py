"""The shapes of our plots: inline SVG with CSS classes, small, no network, and they follow a dark page."""

import math

from markupsafe import Markup, escape


def nice(value: float) -> float:
    """Round up to 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if value <= step * power * (1 + 1e-9))


def text(x: float, y: float, said: str, anchor: str) -> str:
    """Place a text; anchor is start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def svg(width: float, height: float, body: str, title: str) -> Markup:
    """Close a drawing; the title is what a screen reader says."""
    opening = (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
    )
    return Markup(f'{opening}aria-label="{escape(title)}">{body}</svg>')
