"""Differences with their intervals as one plot: inline SVG with CSS classes."""

from collections.abc import Mapping

from markupsafe import Markup

from recsys.metrics.effect import Effect
from recsys.svg import nice, svg, text

_LEFT, _TOP, _WIDTH, _ROW = 190.0, 12.0, 420.0, 30.0


def forest_plot(effects: Mapping[str, Effect], sides: tuple[str, str] = ("B worse", "B better")) -> Markup:
    """Draw each comparison's gain of B over A in percent with its interval; right of the line B is better."""
    gains = {name: effect.gain for name, effect in effects.items()}
    limit = nice(max((max(abs(g[1]), abs(g[2])) for g in gains.values() if g), default=0.01) or 0.01)
    bottom = _TOP + _ROW * len(gains) + 6

    def x(value: float) -> float:
        return _LEFT + _WIDTH * (value / limit + 1) / 2

    shapes = []
    for tick in (-limit, -limit / 2, 0.0, limit / 2, limit):
        kind = "zero" if tick == 0 else "grid"
        shapes.append(
            f'<line class="{kind}" x1="{x(tick):.1f}" y1="{_TOP}" x2="{x(tick):.1f}" y2="{bottom:.1f}"/>'
        )
        shapes.append(text(x(tick), bottom + 16, f"{100 * tick:+.3g} %" if tick else "0", "middle"))
    for row, (name, gain) in enumerate(gains.items()):
        y = _TOP + _ROW * (row + 0.5)
        shapes.append(text(_LEFT - 12, y + 4, name, "end"))
        if gain is None:
            shapes.append(text(x(0) + 8, y + 4, "not defined", "start"))
            continue
        verdict = (effects[name].verdict or "").replace(" ", "-")
        ends = f'x1="{x(gain[1]):.1f}" y1="{y:.1f}" x2="{x(gain[2]):.1f}" y2="{y:.1f}"'
        shapes.append(f'<line class="interval {verdict}" {ends}/>')
        shapes.append(f'<circle class="point {verdict}" cx="{x(gain[0]):.1f}" cy="{y:.1f}" r="5"/>')
        shapes.append(text(_LEFT + _WIDTH + 14, y + 4, f"{100 * gain[0]:+.2f} %", "start"))
    shapes.append(text(x(-limit / 2), bottom + 34, f"◀ {sides[0]}", "middle"))
    shapes.append(text(x(limit / 2), bottom + 34, f"{sides[1]} ▶", "middle"))
    return svg(_LEFT + _WIDTH + 90, bottom + 42, "".join(shapes), f"Gains: {sides[0]} or {sides[1]}")
