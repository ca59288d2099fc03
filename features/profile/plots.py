"""The plots of a profile, as inline SVG."""

from collections.abc import Mapping, Sequence
from datetime import date

from markupsafe import Markup, escape

from features.profile.model import Day
from recsys.svg import nice, svg, text

_LEFT, _TOP, _WIDTH, _HEIGHT = 62.0, 12.0, 350.0, 150.0
_MAX_BARS = 400


def day_bars(values: Mapping[date, float], title: str) -> Markup:
    """Draw one figure per day as bars; a long log is drawn in equal steps of days, each their mean."""
    days = sorted(values)
    step = -(-len(days) // _MAX_BARS)
    grouped = [days[n : n + step] for n in range(0, len(days), step)]
    means = [sum(values[d] for d in group) / len(group) for group in grouped]
    names = [f"{group[0]}" if step == 1 else f"{group[0]} to {group[-1]}" for group in grouped]
    ends = [text(_LEFT, _TOP + _HEIGHT + 18, f"{days[0]}", "start")]
    if len(days) > 1:
        ends.append(text(_LEFT + _WIDTH, _TOP + _HEIGHT + 18, f"{days[-1]}", "end"))
    return _bars(means, names, title, "".join(ends))


def named_bars(values: Mapping[str, float], title: str) -> Markup:
    """Draw one bar per name, with the name below."""
    width = _WIDTH / max(len(values), 1)
    labels = [
        text(_LEFT + width * (n + 0.5), _TOP + _HEIGHT + 18, name, "middle")
        for n, name in enumerate(values)
        if len(values) <= 12 or n % 3 == 0
    ]
    return _bars(list(values.values()), list(values), title, "".join(labels))


def new_lines(later: Sequence[Day], title: str) -> Markup:
    """Draw the shares of new users and new items per day."""
    days = [day.day for day in later]
    lines = ([day.new_users for day in later], [day.new_items for day in later])
    top = nice(max(max(line) for line in lines) or 1.0)
    count = max(len(days) - 1, 1)
    shapes = [_grid(top, percent=True)]
    for kind, line in zip("ab", lines, strict=True):
        points = [(_LEFT + _WIDTH * n / count, _y(value / top)) for n, value in enumerate(line)]
        path = " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
        shapes.append(f'<path class="curve {kind}" d="M{path}"/>')
        if len(points) == 1:
            shapes.append(
                f'<circle class="dot {kind}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>'
            )
    shapes.append(text(_LEFT, _TOP + _HEIGHT + 18, f"{days[0]}", "start"))
    if len(days) > 1:
        shapes.append(text(_LEFT + _WIDTH, _TOP + _HEIGHT + 18, f"{days[-1]}", "end"))
    return svg(_LEFT + _WIDTH + 14, _TOP + _HEIGHT + 26, "".join(shapes), title)


def _bars(values: Sequence[float], names: Sequence[str], title: str, labels: str) -> Markup:
    top = nice(max(values, default=1.0) or 1.0)
    width = _WIDTH / max(len(values), 1)
    gap = min(width * 0.2, 4.0)
    shapes = [_grid(top, percent=False)]
    for n, (value, name) in enumerate(zip(values, names, strict=True)):
        y = _y(value / top)
        box = f'x="{_LEFT + width * n + gap / 2:.1f}" y="{y:.1f}" width="{width - gap:.2f}"'
        height = f'height="{_TOP + _HEIGHT - y:.1f}"'
        shapes.append(
            f'<rect class="dot a" {box} {height}><title>{escape(f"{name}: {value:,.6g}")}</title></rect>'
        )
    return svg(_LEFT + _WIDTH + 14, _TOP + _HEIGHT + 26, "".join([*shapes, labels]), title)


def _grid(top: float, *, percent: bool) -> str:
    shapes = []
    for part in (0.0, 0.5, 1.0):
        y = _y(part)
        shapes.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _WIDTH}" y2="{y:.1f}"/>')
        said = f"{100 * top * part:.3g} %" if percent else _short(top * part)
        shapes.append(text(_LEFT - 6, y + 4, said, "end"))
    return "".join(shapes)


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _y(part: float) -> float:
    return _TOP + _HEIGHT * (1 - part)
