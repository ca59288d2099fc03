"""A set's report on the terminal: a line per row, a line per pair of rows compared."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from benchmarks.quality.quality_set import Key
from benchmarks.quality.report import Difference, Figure, QualityReport


def show_report(report: QualityReport) -> None:
    """Print the tables, and the chosen row's figures as one line of JSON."""
    tables = [rows_table(report)] if report.rows else []
    tables += [differences_table(report)] if report.differences else []
    wide = _wide_enough(tables)
    for table in tables:
        wide.print(table)
    wide.print(json.dumps({"best": report.as_json()["best"]}, allow_nan=False), highlight=False)


def rows_table(report: QualityReport) -> Table:
    """Lay the rows out, published ones below; heads in the order in which rows have them."""
    heads: list[Mapping[str, Mapping[str, object]]] = [row.heads for row in report.rows]
    named = [
        (h, m) for of in [*heads, *report.published.values()] for h, metrics in of.items() for m in metrics
    ]
    order = list(dict.fromkeys(h for h, _ in named))
    columns = sorted(dict.fromkeys(named), key=lambda column: order.index(column[0]))
    table = Table("model", *[f"{h} {m}" for h, m in columns], "seeds", "note", box=None)
    for row in report.rows:
        cells = [_cell(row.heads.get(h, {}).get(m)) for h, m in columns]
        table.add_row(row.name, *cells, str(row.seeds), row.note)
    for name, published in report.published.items():
        cells = [f"{published[h][m]:.4f}" if m in published.get(h, {}) else "–" for h, m in columns]
        table.add_row(name, *cells, "", "published")
    return table


def differences_table(report: QualityReport) -> Table:
    """Lay the differences out: a line per pair of rows, a column per figure."""
    columns = list(dict.fromkeys((d.head, d.metric) for d in report.differences))
    lines: dict[tuple[str, str], dict[Key, str]] = {}
    for d in report.differences:
        lines.setdefault((d.row, d.against), {})[d.head, d.metric] = _difference_cell(d)
    table = Table("difference", *[f"{h} {m}" for h, m in columns], box=None)
    for (row, against), cells in lines.items():
        table.add_row(f"{row} less {against}", *[cells.get(key, "–") for key in columns])
    return table


def _difference_cell(d: Difference) -> str:
    if d.low is None or d.high is None:
        return f"{d.value:+.4f} {d.verdict}"
    return f"{d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f}) {d.verdict}"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.4f}"
    return f"{figure.value:.4f} ({figure.low:.4f}-{figure.high:.4f})"


def _wide_enough(tables: Sequence[Table]) -> Console:
    """Give a console on which no cell is cut: figures that are cut are none, and a file has no width."""
    console = Console()
    needed = [Measurement.get(console, console.options.update(max_width=1000), t).maximum for t in tables]
    return Console(width=max([console.width, *needed]))
