"""FusionReport -> report.html, report.json and fusion.toml."""

from itertools import combinations
from pathlib import Path
from typing import Any

from training.tune.fusion.fusion_report import FusionReport, weights_line
from training.tune.search_pages import write_search


def write_fusion(report: FusionReport, out: Path) -> list[Path]:
    """Write report.html, report.json and fusion.toml into a folder."""
    named = [("current", report.current), *(("", point) for point in report.front)]
    points = [("knee" if point.fusion == report.recommended.fusion else name, point) for name, point in named]
    planes = []
    for across, up in combinations(report.current.found, 2):
        marks: list[tuple[float, float, str, str]] = [
            (p.found[across], p.found[up], n or "front", weights_line(p.fusion)) for n, p in reversed(points)
        ]
        planes.append((across, up, marks))
    values: dict[str, Any] = {"points": points, "planes": planes}
    return write_search(report, "fusion.html.j2", ("fusion.toml", report.toml), out, **values)
