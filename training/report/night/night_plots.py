"""Plots of a night's page as inline SVG: lines over days, and a strip of verdicts."""

import math
from collections.abc import Mapping, Sequence
from datetime import date

from markupsafe import Markup, escape

from recsys.svg import line, nice, path, svg, text

Line = Sequence[float | None]
MAX_LINES = 6
"""So many lines have a look of their own."""
_LEFT, _TOP, _WIDTH, _HEIGHT = 64.0, 10.0, 350.0, 150.0
_BELOW, _LEGEND = 22.0, 16.0
_STRIP, _GAP, _MARK = 15.0, 3.0, 36.0


def day_lines(
    title: str, days: Sequence[date], lines: Mapping[str, Line], *, zero: bool = True, share: bool = False
) -> Markup:
    """Draw one value a day for each of up to MAX_LINES names; a day without a value is a gap.

    Args: zero: the axis begins at 0; share: values are shares, written as percentages.
    """
    shown = dict(list(lines.items())[:MAX_LINES])
    known = [v for values in shown.values() for v in values if v is not None and math.isfinite(v)]
    if not known or not days:
        return Markup("")
    low, high = _range(known, zero=zero)
    legend = len(shown) if len(shown) > 1 else 0
    shapes = [_frame(), _axis(low, high, share=share), _ends(days)]
    for number, (name, values) in enumerate(shown.items()):
        kind, said = f"pair{number}", "{:.1%}" if share else "{:,.4g}"
        for run in _runs(values):
            points = [_place(i, value, len(days), low, high) for i, value in run]
            shapes.append(path(points, f"curve {kind}"))
            shapes += [
                _dot(point, kind, f"{name}, {days[i]}: {said.format(value)}")
                for point, (i, value) in zip(points, run, strict=True)
            ]
        if legend:
            y = _TOP + _HEIGHT + _BELOW + _LEGEND * (number + 0.6)
            shapes.append(line((_LEFT, y), (_LEFT + 22, y), f"curve {kind}"))
            shapes.append(text(_LEFT + 28, y + 4, name, "start"))
    height = _TOP + _HEIGHT + _BELOW + _LEGEND * legend + 4
    return svg(_LEFT + _WIDTH + 12, height, "".join(shapes), title)


def verdict_strip(nights: Sequence[tuple[date, str, str]]) -> Markup:
    """Draw a square a night, coloured by its verdict. Args: nights: date, verdict, what to say of it."""
    shapes = []
    for number, (night, verdict, said) in enumerate(nights):
        x = number * (_STRIP + _GAP)
        colour = verdict.lower().replace("_", "-")
        shapes.append(
            f'<rect class="verdict {escape(colour)}" x="{x:.1f}" y="0" width="{_STRIP}" '
            f'height="{_STRIP}" rx="3">'
            f"<title>{escape(f'{night}: {verdict}. {said}'.strip())}</title></rect>"
        )
    width = max(len(nights) * (_STRIP + _GAP), 2 * _MARK)
    if nights:
        shapes.append(text(0, _STRIP + 15, f"{nights[0][0]:%d %b}", "start"))
    if len(nights) * (_STRIP + _GAP) > 2 * _MARK:
        shapes.append(text(width - _GAP, _STRIP + 15, f"{nights[-1][0]:%d %b}", "end"))
    return svg(width, _STRIP + 20, "".join(shapes), "Verdicts of the nights")


def _range(known: Sequence[float], *, zero: bool) -> tuple[float, float]:
    low, high = min(known), max(known)
    if zero:
        return min(0.0, low), nice(high) if high > 0 else 1.0
    pad = max((high - low) * 0.12, abs(high) * 0.005, 1e-6)
    lowest = low - pad
    return max(0.0, lowest) if low >= 0 else lowest, high + pad  # no axis below 0 where no value is


def _place(i: int, value: float, count: int, low: float, high: float) -> tuple[float, float]:
    x = _LEFT + _WIDTH * (i + 0.5) / count
    return x, _TOP + _HEIGHT * (1 - (value - low) / (high - low))


def _runs(values: Line) -> list[list[tuple[int, float]]]:
    """Split a line where a day has no value."""
    runs: list[list[tuple[int, float]]] = [[]]
    for i, value in enumerate(values):
        if value is None or not math.isfinite(value):
            runs.append([])
        else:
            runs[-1].append((i, value))
    return [run for run in runs if run]


def _frame() -> str:
    return f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}"/>'


def _axis(low: float, high: float, *, share: bool) -> str:
    shapes = []
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _TOP + _HEIGHT * (1 - part)
        if 0 < part < 1:
            shapes.append(line((_LEFT, y), (_LEFT + _WIDTH, y), "grid"))
        value = low + (high - low) * part
        said = f"{100 * value:.3g} %" if share else f"{value:,.0f}" if high >= 1_000 else f"{value:.3g}"
        shapes.append(text(_LEFT - 6, y + 4, said, "end"))
    return "".join(shapes)


def _ends(days: Sequence[date]) -> str:
    y = _TOP + _HEIGHT + 15
    if len(days) == 1:
        return text(_LEFT + _WIDTH / 2, y, f"{days[0]:%d %b %Y}", "middle")
    return text(_LEFT, y, f"{days[0]:%d %b %Y}", "start") + text(
        _LEFT + _WIDTH, y, f"{days[-1]:%d %b %Y}", "end"
    )


def _dot(point: tuple[float, float], kind: str, said: str) -> str:
    x, y = point
    opening = f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.6">'
    return f"{opening}<title>{escape(said)}</title></circle>"
