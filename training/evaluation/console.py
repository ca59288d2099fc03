"""EvalReport -> tables on the terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from recsys.metrics.table import METRICS
from training.evaluation.eval_report import EvalReport, EvalTable
from training.evaluation.head_metrics import HeadMetrics
from training.evaluation.list_metrics import ListMetrics, source_line

_FIRST = 19
_EACH = 9
"""Columns' widths in letters."""


def print_report(report: EvalReport) -> None:
    """Print the leak check, then one table per head and one for the lists, simple systems below the model."""
    console = Console()
    for warning in report.warnings:
        console.print(Panel(Text(warning), title="NOT TRUSTWORTHY", style="red"))
    until = f"trained on days up to {report.leaks.trained_until}"
    console.print(f"{report.version}, {until}, scored on {report.days[0]} to {report.days[-1]}")
    console.print(_lists_line(report), style="dim", highlight=False)
    for task in report.heads:
        rows = {"model": report.heads[task]} | {
            name: table.heads[task] for name, table in report.baselines.items() if task in table.heads
        }
        console.print(_head_table(task, rows))
    for part in _ranking_tables(report, console.width):
        console.print(part)
    if report.ranking.hidden:
        console.print(hidden_line(report.ranking), style="dim", highlight=False, markup=False)
    if line := source_line(report.ranking):
        console.print(line, style="dim", highlight=False, markup=False)
    for name, table in report.baselines.items():
        for note in table.notes:
            console.print(f"  {name}: {note}", style="dim", highlight=False, markup=False)


def _lists_line(report: EvalReport) -> str:
    """Say what rows a metric inside lists compares, and whether positions are weighed."""
    lists = {
        "request": "a request",
        "user_period_context": "what one user saw in one period and context, its rows scored as it began",
    }[report.list_group]
    weighed = "weighed by how likely they are looked at" if report.examination else "count alike"
    return f"a list is {lists}; positions {weighed}"


def hidden_line(ranking: ListMetrics) -> str:
    """Say how many wanted items the policy keeps from the lists."""
    share = ranking.hidden / ranking.relevant
    return (
        f"hidden: {ranking.hidden:,} of the {ranking.relevant:,} wanted items ({share:.1%}) are what the "
        'user took before: [policy] repeat = "exclude" does not show them again, '
        "the baseline own_history does"
    )


def _head_table(task: str, rows: dict[str, HeadMetrics]) -> Table:
    names = [name for name in rows["model"].values if "terminal" in METRICS[name].tables]
    table = _table(task, [METRICS[name].title for name in names] + ["rows"])
    for system, metrics in rows.items():
        table.add_row(system, *_figures(metrics.values, names), f"{metrics.rows:,}")
    return table


def _ranking_tables(report: EvalReport, width: int) -> Iterator[Table]:
    """Draw the lists' figures, beside each other as far as the terminal is wide, the rest below."""
    names = [name for name in report.ranking.values if "terminal" in METRICS[name].tables]
    columns = [METRICS[name].title for name in names] + ["users", "lists"]
    rows: dict[str, list[str]] = {}
    systems: dict[str, EvalReport | EvalTable] = {"model": report, **report.baselines}
    for name, system in systems.items():
        if (ranking := system.ranking) is not None:
            rows[name] = [*_figures(ranking.values, names), f"{ranking.users:,}", f"{ranking.lists:,}"]
    at_once = max(1, (width - _FIRST - 2) // (_EACH + 2))
    for start in range(0, len(columns), at_once):
        part = slice(start, start + at_once)
        table = _table("lists", columns[part])
        for name, figures in rows.items():
            table.add_row(name, *figures[part])
        yield table


def _figures(values: Mapping[str, float | None], names: Sequence[str]) -> list[str]:
    figures = {name: values.get(name) for name in names}
    return ["-" if v is None else f"{v:.{METRICS[name].digits}f}" for name, v in figures.items()]


def _table(first: str, titles: Sequence[str]) -> Table:
    table = Table(Column(first, min_width=_FIRST, no_wrap=True), box=None)
    for title in titles:
        table.add_column(title, justify="right", min_width=_EACH)
    return table
