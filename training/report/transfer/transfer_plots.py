"""Heat maps and curves of the transfer report, as inline SVG in the page's own colours."""

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from recsys.svg import line, path, svg, text
from training.report.transfer.transfer_report import Curve, GateHealth, PairValue

_CELL, _HIGH, _LEFT, _TOP = 92.0, 34.0, 130.0, 26.0
_WIDTH, _HEIGHT = 420.0, 220.0


def cosine_map(names: Sequence[str], pairs: Sequence[PairValue]) -> Markup:
    """Draw the mean cosine of every two losses' gradients; green agrees, red opposes."""
    values = {(p.first, p.second): p.mean for p in pairs}
    values |= {(b, a): v for (a, b), v in values.items()} | {(n, n): 1.0 for n in names}
    return _heat_map(names, names, values, lambda v: f"{v:+.2f}", 1.0, "Cosine of gradients")


def affinity_map(names: Sequence[str], pairs: Sequence[PairValue]) -> Markup:
    """Draw, per row, what that loss's part of a step does to each column's loss; green lowers it."""
    values = {(p.first, p.second): 100 * p.mean for p in pairs}
    others = [abs(v) for (a, b), v in values.items() if a != b]
    return _heat_map(names, names, values, lambda v: f"{v:+.3f} %", max(others, default=1.0), "Affinity")


def occupancy_map(gates: Mapping[str, GateHealth]) -> Markup:
    """Draw how much each head (row) uses each expert (column)."""
    experts = [f"expert {e + 1}" for e in range(len(next(iter(gates.values())).occupancy))]
    values = {
        (task, name): share
        for task, gate in gates.items()
        for name, share in zip(experts, gate.occupancy, strict=True)
    }
    return _heat_map(list(gates), experts, values, lambda v: f"{100 * v:.0f} %", 1.0, "Use of experts")


def cosine_curves(curves: Sequence[Curve]) -> Markup:
    """Draw every pair's cosine over the training, one dash pattern a pair."""
    limit = max((abs(p.cosine) for c in curves for p in c.points), default=0.1)
    limit = max(0.1, math.ceil(10 * limit) / 10)

    def at(progress: float, cosine: float) -> tuple[float, float]:
        return 50 + _WIDTH * progress, 12 + _HEIGHT * (1 - cosine / limit) / 2

    shapes = []
    for tick in (-limit, -limit / 2, 0.0, limit / 2, limit):
        shapes.append(line(at(0, tick), at(1, tick), "zero" if tick == 0 else "grid"))
        shapes.append(text(44, at(0, tick)[1] + 4, f"{tick:+.2g}" if tick else "0", "end"))
    shapes += [
        text(at(part, 0)[0], _HEIGHT + 30, f"{100 * part:.0f} %", "middle") for part in (0.0, 0.5, 1.0)
    ]
    for number, curve in enumerate(curves):
        points = [at(p.progress, p.cosine) for p in curve.points]
        shapes.append(path(points, f"curve pair{number % 6}"))
        y = 24.0 + 20 * number
        shapes.append(path([(_WIDTH + 66, y - 4), (_WIDTH + 92, y - 4)], f"curve pair{number % 6}"))
        shapes.append(text(_WIDTH + 98, y, f"{curve.first} × {curve.second}", "start"))
    shapes.append(text(50 + _WIDTH / 2, _HEIGHT + 50, "share of the training", "middle"))
    height = max(_HEIGHT + 58, 34.0 + 20 * len(curves))
    return svg(_WIDTH + 270, height, "".join(shapes), "Cosine of gradients over the training")


def _heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Mapping[tuple[str, str], float],
    printed: Callable[[float], str],
    limit: float,
    title: str,
) -> Markup:
    """Draw a table of coloured cells; the colour is full at `limit` and beyond."""
    shapes = [text(_LEFT + _CELL * (j + 0.5), _TOP - 9, column, "middle") for j, column in enumerate(columns)]
    for i, row in enumerate(rows):
        y = _TOP + _HIGH * i
        shapes.append(text(_LEFT - 10, y + _HIGH / 2 + 4, row, "end"))
        for j, column in enumerate(columns):
            x = _LEFT + _CELL * j
            value = values.get((row, column))
            if value is not None:
                strength = min(1.0, abs(value) / limit if limit else 0.0)
                kind = "agree" if value >= 0 else "oppose"
                shapes.append(
                    f'<rect class="{kind}" fill-opacity="{0.75 * strength:.2f}" x="{x:.0f}" y="{y:.0f}" '
                    f'width="{_CELL - 2:.0f}" height="{_HIGH - 2:.0f}"/>'
                )
            figure = "–" if value is None else printed(value)
            shapes.append(text(x + _CELL / 2 - 1, y + _HIGH / 2 + 3, figure, "middle", "cell"))
    width, height = _LEFT + _CELL * len(columns) + 4, _TOP + _HIGH * len(rows) + 4
    return svg(width, height, "".join(shapes), title)
