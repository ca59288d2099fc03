"""EvalReport -> tables on the terminal."""

from rich.console import Console
from rich.panel import Panel
from rich.table import Column, Table

from training.evaluation.metrics import BinaryMetrics, HeadMetrics
from training.evaluation.report import EvalReport, EvalTable

BINARY_COLUMNS = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss", "ece": "ECE", "rows": "rows"}
REGRESSION_COLUMNS = {"rmse": "RMSE", "mae": "MAE", "rows": "rows"}
RANKING_COLUMNS = {
    "ndcg_at_10": "NDCG@10",
    "retrieval_ndcg_at_10": "(retrieval)",
    "recall_at_50": "recall@50",
    "users": "users",
    "lists": "lists",
}


def print_report(report: EvalReport) -> None:
    """Print the leak check, then one table per head and one for the lists, simple systems below the model."""
    console = Console()
    for warning in report.warnings:
        console.print(Panel(warning, title="NOT TRUSTWORTHY", style="red"))
    until = f"learnt from days up to {report.leaks.trained_until}"
    console.print(f"{report.version}, {until}, scored on {report.days[0]} to {report.days[-1]}")
    for task in report.heads:
        rows = {"model": report.heads[task]} | {
            name: table.heads[task] for name, table in report.baselines.items() if task in table.heads
        }
        console.print(_head_table(task, rows))
    console.print(_ranking_table(report))
    for name, table in report.baselines.items():
        for note in table.notes:
            console.print(f"  {name}: {note}", style="dim", highlight=False)


def _head_table(task: str, rows: dict[str, HeadMetrics]) -> Table:
    columns = BINARY_COLUMNS if isinstance(rows["model"], BinaryMetrics) else REGRESSION_COLUMNS
    table = _table(task, columns)
    for name, metrics in rows.items():
        table.add_row(name, *(_cell(getattr(metrics, column)) for column in columns))
    return table


def _ranking_table(report: EvalReport) -> Table:
    table = _table("lists", RANKING_COLUMNS)
    tables: dict[str, EvalReport | EvalTable] = {"model": report, **report.baselines}
    for name, system in tables.items():
        if system.ranking is not None:
            table.add_row(name, *(_cell(getattr(system.ranking, column)) for column in RANKING_COLUMNS))
    return table


def _table(first: str, columns: dict[str, str]) -> Table:
    table = Table(Column(first, min_width=19, no_wrap=True), box=None)
    for title in columns.values():
        table.add_column(title, justify="right", min_width=9)
    return table


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
