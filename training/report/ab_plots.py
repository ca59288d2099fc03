"""Plots as inline SVG: plain shapes with CSS classes: small, no network, and they follow a dark page."""

from collections.abc import Mapping, Sequence
from datetime import date

from markupsafe import Markup, escape

from recsys.svg import line, nice, path, svg, text
from training.evaluation.head_metrics import Reliability

_LEFT, _TOP, _SIDE = 58.0, 12.0, 230.0


def reliability_plot(a: Sequence[Reliability], b: Sequence[Reliability]) -> Markup:
    """Draw mean label against mean prediction per bin, ±2 standard errors; the diagonal is perfect."""
    top = nice(max((max(r.mean_prediction, r.mean_label) for r in (*a, *b)), default=1.0))
    shapes = [_axes(top, top), _line((0, 0), (top, top), top, top, "diagonal")]
    for name, bins in (("a", a), ("b", b)):
        points = [(r.mean_prediction, r.mean_label) for r in bins]
        shapes.append(_path(points, top, top, f"curve {name}"))
        for r in bins:
            low, high = max(r.mean_label - 2 * r.standard_error, 0.0), r.mean_label + 2 * r.standard_error
            shapes.append(
                _line((r.mean_prediction, low), (r.mean_prediction, min(high, top)), top, top, f"bar {name}")
            )
            title = f"{r.count:,} rows: predicted {r.mean_prediction:.4f}, was {r.mean_label:.4f}"
            shapes.append(_dot((r.mean_prediction, r.mean_label), top, top, name, title))
    labels = text(_LEFT + _SIDE / 2, _TOP + _SIDE + 38, "mean prediction", "middle") + _turned("mean label")
    return svg(_LEFT + _SIDE + 14, _TOP + _SIDE + 44, "".join([*shapes, labels]), "Reliability of A and B")


def day_plot(metric: str, days: Mapping[date, tuple[float | None, float | None]]) -> Markup:
    """Draw one metric per day for A and B."""
    known = [v for pair in days.values() for v in pair if v is not None]
    if not known:
        return Markup("")
    low, high = min(known), max(known)
    pad = max((high - low) * 0.15, abs(high) * 0.005, 1e-6)
    low, high = low - pad, high + pad
    count = max(len(days) - 1, 1)
    shapes = [_frame()]
    for value in (low + pad, (low + high) / 2, high - pad):
        y = _TOP + _SIDE * (1 - (value - low) / (high - low))
        shapes.append(
            f'<line class="grid" x1="{_LEFT:.1f}" y1="{y:.1f}" x2="{_LEFT + _SIDE:.1f}" y2="{y:.1f}"/>'
        )
        shapes.append(text(_LEFT - 6, y + 4, f"{value:.3f}", "end"))
    for k, name in enumerate("ab"):
        values = [pair[k] for pair in days.values()]
        points = [(n / count, (v - low) / (high - low)) for n, v in enumerate(values) if v is not None]
        shapes.append(_path(points, 1, 1, f"curve {name}"))
        shapes += [_dot(point, 1, 1, name, "") for point in points]
    ends = list(days)
    shapes.append(text(_LEFT, _TOP + _SIDE + 18, f"{ends[0]:%d %b}", "start"))
    if len(ends) > 1:
        shapes.append(text(_LEFT + _SIDE, _TOP + _SIDE + 18, f"{ends[-1]:%d %b}", "end"))
    shapes.append(text(_LEFT + _SIDE / 2, _TOP + _SIDE + 38, f"{metric} by day", "middle"))
    return svg(_LEFT + _SIDE + 14, _TOP + _SIDE + 44, "".join(shapes), f"{metric} by day")


def _axes(top_x: float, top_y: float) -> str:
    shapes = [_frame()]
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _LEFT + _SIDE * part, _TOP + _SIDE * (1 - part)
        if 0 < part < 1:
            shapes.append(
                f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_TOP + _SIDE:.1f}"/>'
            )
            shapes.append(
                f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _SIDE:.1f}" y2="{y:.1f}"/>'
            )
        shapes.append(text(x, _TOP + _SIDE + 18, f"{top_x * part:.3g}", "middle"))
        shapes.append(text(_LEFT - 6, y + 4, f"{top_y * part:.3g}", "end"))
    return "".join(shapes)


def _frame() -> str:
    return f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}"/>'


def _at(point: tuple[float, float], top_x: float, top_y: float) -> tuple[float, float]:
    return _LEFT + _SIDE * point[0] / top_x, _TOP + _SIDE * (1 - point[1] / top_y)


def _path(points: Sequence[tuple[float, float]], top_x: float, top_y: float, kind: str) -> str:
    return path([_at(p, top_x, top_y) for p in points], kind)


def _line(
    start: tuple[float, float], stop: tuple[float, float], top_x: float, top_y: float, kind: str
) -> str:
    return line(_at(start, top_x, top_y), _at(stop, top_x, top_y), kind)


def _dot(point: tuple[float, float], top_x: float, top_y: float, kind: str, title: str) -> str:
    x, y = _at(point, top_x, top_y)
    tip = f"<title>{escape(title)}</title>" if title else ""
    if kind == "a":
        return f'<circle class="dot a" cx="{x:.1f}" cy="{y:.1f}" r="3.4">{tip}</circle>'
    return f'<rect class="dot b" x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6">{tip}</rect>'


def _turned(text: str) -> str:
    x, y = 13.0, _TOP + _SIDE / 2
    return f'<text x="{x}" y="{y}" text-anchor="middle" transform="rotate(-90 {x} {y})">{escape(text)}</text>'
