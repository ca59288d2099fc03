"""`recsys bench loop`'s JSON as a table, and as a curve that a page can show."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from benchmarks.grids import Grid
from recsys.svg import line, nice, path, svg, text

Tree = Mapping[str, Any]
_LEFT, _TOP, _WIDE, _HIGH, _RIGHT, _BELOW = 60, 28, 420, 200, 150, 40
_LINE = 15
"""Height of a line of text."""
_NAMED = 14
"""So many nights have room for their number."""
_KINDS = ("learns", "never", "always")
_STYLE = (
    "<style>text{font:12px sans-serif;fill:#777}path{fill:none;stroke-width:2}"
    ".learns{stroke:#2a7fbf}.never{stroke:#bf5b2a;stroke-dasharray:5 3}"
    ".always{stroke:#6a9a3a;stroke-dasharray:2 2}.grid{stroke:#9995}</style>"
)


def nights_grid(tree: Tree) -> Grid:
    """Lay out each night: its verdict, and what the lists of the day after were worth."""
    titles = ["served", "verdict", "true value", "expected click", "observed click", "expected / observed"]
    titles += ["never retrained", "above it", "new items shown", "offered"]
    return [
        titles,
        *(
            [
                night["day"],
                night["verdict"],
                f"{night['true_value']:.3f}",
                f"{night['expected_click']:.3f}",
                f"{night['observed_click']:.3f}",
                _ratio(night["expected_over_observed"]),
                f"{never['true_value']:.3f}",
                _share(night["above_never_retrained"]),
                f"{night['new_shown']:.3f}",
                f"{night['new_offered']:.3f}",
            ]
            for night, never in zip(tree["nights"], tree["never_retrained"], strict=True)
        ),
    ]


def value_curve(tree: Tree) -> str:
    """Draw the true value by night, with learning and without, as a file of its own."""
    return draw_nights(
        f"true value of a page, shop of seed {tree['seed']}",
        {
            "learns every night": [night["true_value"] for night in tree["nights"]],
            "never retrained": [night["true_value"] for night in tree["never_retrained"]],
        },
    )


def draw_nights(title: str, worlds: Mapping[str, Sequence[float]]) -> str:
    """Draw a figure by night, a curve for each of up to three worlds, as a file of its own."""
    every = [value for values in worlds.values() for value in values]
    low, high = min(every), max(every)
    step = nice(max(high - low, 1e-6) / 4)
    bottom = step * int(low / step)
    top = bottom + step * max(1, -(-(high - bottom) // step))
    shapes = []
    for tick in range(round((top - bottom) / step) + 1):
        y = _y(bottom + tick * step, bottom, top)
        shapes.append(line((_LEFT, y), (_LEFT + _WIDE, y), "grid"))
        shapes.append(text(_LEFT - 8, y + 4, f"{bottom + tick * step:.3g}", "end"))
    count = max(map(len, worlds.values()))
    named = range(0, count, -(-count // _NAMED))
    shapes += [text(_x(n, count), _TOP + _HIGH + 18, str(n + 1), "middle") for n in named]
    ends = _apart([_y(values[-1], bottom, top) for values in worlds.values()])
    for kind, (said, values), end in zip(_KINDS, worlds.items(), ends, strict=False):
        shapes.append(path(_points(values, bottom, top), kind))
        shapes.append(text(_LEFT + _WIDE + 8, end + 4, said, "start"))
    shapes.append(text(_LEFT + _WIDE / 2, _TOP + _HIGH + 34, "night", "middle"))
    shapes.append(text(_LEFT, _TOP - 12, title, "start"))
    drawn = svg(_LEFT + _WIDE + _RIGHT, _TOP + _HIGH + _BELOW, _STYLE + "".join(shapes), title)
    return str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _apart(heights: Sequence[float]) -> list[float]:
    """Move heights apart, as little as possible in the mean, until a line of text fits between any two."""
    order = sorted(range(len(heights)), key=lambda n: heights[n])
    found = list(heights)
    for above, below in pairwise(order):
        found[below] = max(found[below], found[above] + _LINE)
    moved = sum(found) - sum(heights)
    return [height - moved / len(heights) for height in found]


def _points(values: Sequence[float], bottom: float, top: float) -> list[tuple[float, float]]:
    return [(_x(n, len(values)), _y(value, bottom, top)) for n, value in enumerate(values)]


def _x(number: int, count: int) -> float:
    return _LEFT + _WIDE * (number + 0.5) / count


def _y(value: float, bottom: float, top: float) -> float:
    return _TOP + _HIGH * (top - value) / (top - bottom)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(above: Mapping[str, float]) -> str:
    return f"{100 * above['mean']:+.1f} % ({100 * above['low']:+.1f} to {100 * above['high']:+.1f})"
