"""Reports of both searches -> report.html (one file, no network), report.json and a TOML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, PackageLoader
from markupsafe import Markup, escape

from recsys.svg import line, svg, text
from training.report.report_files import report_environment, write_files

_LEFT, _TOP, _SIDE = 74.0, 14.0, 270.0
_BAR, _ROW = 360.0, 24.0
Marks = Sequence[tuple[float, float, str, str]]
"""(x, y, class, title) of points."""


def write_search(report: Any, template: str, toml: tuple[str, str], out: Path, **values: Any) -> list[Path]:
    """Write a report's page, its JSON and its TOML into a folder.

    Args: toml: (file name, text); values: what else the template needs.
    Raises: DataError when the folder cannot be written.
    """
    environment = report_environment(template)
    assert environment.loader is not None, "the reports' own templates"
    environment.loader = ChoiceLoader([PackageLoader("training.tune"), environment.loader])
    environment.globals |= {"scatter": scatter, "bars": bars}
    page = environment.get_template(template).render(report=report, toml=toml[1], **values)
    return write_files(
        {"report.html": page, "report.json": report.model_dump_json(indent=1) + "\n", toml[0]: toml[1]}, out
    )


def scatter(marks: Marks, across: str, up: str) -> Markup:
    """Draw points in a plane; axes span them."""
    xs, ys = [m[0] for m in marks], [m[1] for m in marks]
    spans = [(min(v), (max(v) - min(v)) or 1.0) for v in (xs, ys)]

    def at(x: float, y: float) -> tuple[float, float]:
        (x0, dx), (y0, dy) = spans
        return (
            _LEFT + _SIDE * (0.05 + 0.9 * (x - x0) / dx),
            _TOP + _SIDE * (1 - 0.05 - 0.9 * (y - y0) / dy),
        )

    shapes = [f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}"/>']
    for part in (0.0, 0.5, 1.0):
        x, y = spans[0][0] + part * spans[0][1], spans[1][0] + part * spans[1][1]
        px, py = at(x, y)
        shapes += [
            line((_LEFT, py), (_LEFT + _SIDE, py), "grid"),
            line((px, _TOP), (px, _TOP + _SIDE), "grid"),
        ]
        shapes += [
            text(px, _TOP + _SIDE + 16, f"{x:.4g}", "middle"),
            text(_LEFT - 6, py + 4, f"{y:.4g}", "end"),
        ]
    for x, y, kind, title in marks:
        px, py = at(x, y)
        size = 4.0 if kind == "front" else 6.5
        shapes.append(
            f'<circle class="dot {kind}" cx="{px:.1f}" cy="{py:.1f}" r="{size}">'
            f"<title>{escape(title)}</title></circle>"
        )
    shapes.append(text(_LEFT + _SIDE / 2, _TOP + _SIDE + 36, across, "middle"))
    shapes.append(text(_LEFT, _TOP - 3, up, "start"))
    return svg(_LEFT + _SIDE + 16, _TOP + _SIDE + 44, "".join(shapes), f"{up} against {across}")


def bars(values: Mapping[str, float], title: str) -> Markup:
    """Draw one horizontal bar a name, by share."""
    limit = max(values.values(), default=0.0) or 1.0
    shapes = []
    for row, (name, value) in enumerate(values.items()):
        y = _TOP + _ROW * row
        width = _BAR * value / limit
        shapes.append(text(190, y + 15, name, "end"))
        shapes.append(
            f'<rect class="dot a" x="198" y="{y:.1f}" width="{width:.1f}" height="{_ROW - 6:.0f}"/>'
        )
        shapes.append(text(204 + width, y + 14, f"{100 * value:.1f} %", "start"))
    return svg(_BAR + 270, _TOP + _ROW * len(values) + 8, "".join(shapes), title)
