"""A set's report on the terminal: a line per row, a line per pair of rows compared."""

from collections.abc import Mapping

from rich.table import Table

from benchmarks.quality.quality_set import Key
from benchmarks.quality.report import Difference, Figure, QualityReport


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
