"""`recsys evaluate`: a frozen bundle on later days, beside the simple systems."""

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Column, Table

from features.build import build_snapshots
from features.store import open_store
from recsys.bundle import Bundle, load_bundle
from recsys.config import StoreConfig
from recsys.errors import ConfigError, DataError, RegistryError
from recsys.log import InteractionLog, period_end
from recsys.registry import Registry
from recsys.snapshot import DaySnapshot
from recsys.stages import Stages, write_json
from training.evaluation.evaluate import evaluate, evaluated_periods
from training.evaluation.metrics import BinaryMetrics, HeadMetrics
from training.evaluation.report import EvalReport, EvalTable
from training.predict import BundlePredictor
from training.progress import bar
from training.threads import use_threads

BINARY_COLUMNS = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss", "ece": "ECE", "rows": "rows"}
REGRESSION_COLUMNS = {"rmse": "RMSE", "mae": "MAE", "rows": "rows"}
RANKING_COLUMNS = {
    "ndcg_at_10": "NDCG@10",
    "retrieval_ndcg_at_10": "(retrieval)",
    "recall_at_50": "recall@50",
    "users": "users",
    "lists": "lists",
}


def evaluate_command(
    runs: Annotated[Path, typer.Option("--runs", help="Folder of bundles and registry.")],
    log: Annotated[Path, typer.Option("--log", help="Folder of the interaction log.")],
    first: Annotated[str, typer.Option("--from", help="First day to score, YYYY-MM-DD.")],
    last: Annotated[str, typer.Option("--to", help="Last day to score.")],
    labels_until: Annotated[
        str, typer.Option(help="Last day whose feedback may be a label; default: the last day scored.")
    ] = "",
    bundle: Annotated[str, typer.Option(help="Bundle version; default: the live one.")] = "",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the report here.")] = None,
    users: Annotated[
        int, typer.Option(min=1, help="At most so many users a period get ranked lists.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of users and of fitted baselines.")] = 0,
    *,
    all_users: Annotated[bool, typer.Option("--all-users", help="Rank for every user.")] = False,
    baselines: Annotated[bool, typer.Option(help="Also score the simple systems.")] = True,
    fitted: Annotated[
        bool, typer.Option(help="Among these, also the ones that must be fitted first.")
    ] = True,
    lightgbm: Annotated[bool, typer.Option("--lightgbm", help="One more baseline; extra `bench`.")] = False,
) -> None:
    """Score a frozen bundle on later days; features roll forward day by day, the model does not move."""
    loaded = load_reproducible(require_version(Registry(runs), bundle))
    use_threads(loaded.config.training.threads)
    days = parse_days(InteractionLog(log), first, last)
    chain = snapshots(loaded, log, runs, _labels_until(InteractionLog(log), days[1], labels_until))
    with bar("evaluate") as on_progress:
        report = evaluate(
            BundlePredictor(loaded),
            chain,
            evaluated_periods(chain, loaded.config.tasks, *days),
            period_end(chain[-1].day, loaded.config.timezone),
            max_users=None if all_users else users,
            seed=seed,
            baselines=baselines,
            fitted=fitted,
            lightgbm=lightgbm,
            on_progress=on_progress,
        )
    print_report(report, Console())
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json(json_file, report.model_dump(mode="json"))


def require_version(registry: Registry, version: str) -> Path:
    """Give a version's folder; no version means the live one.

    Raises: RegistryError when there is no such version, or none is live.
    """
    version = version or registry.current() or ""
    if not version:
        raise RegistryError(f"no bundle is live in {registry.folder}; pass --bundle, or run `recsys nightly`")
    return registry.require(version)


def load_reproducible(path: Path) -> Bundle:
    """Load a bundle and answer its golden requests: one that this code reads differently is not scored.

    Raises: BundleError when it is corrupt, or does not give here what it gave when it was written.
    """
    from training.publish import verify

    bundle = load_bundle(path)
    # Golden requests carry their own users: an empty store will do.
    with TemporaryDirectory() as empty:
        verify(bundle, open_store(StoreConfig(), Path(empty)))
    return bundle


def parse_days(log: InteractionLog, first: str, last: str) -> tuple[date, date]:
    """Read and check a range of days; the last one is cut to the last day of the log.

    Raises: ConfigError for what is no date or runs backwards; DataError when the log has no impression in it.
    """
    start, stop = parse_date("--from", first), parse_date("--to", last)
    if start > stop:
        raise ConfigError(f"--from {start} is after --to {stop}; swap them")
    days = log.require_days("impressions")
    inside = [day for day in days if start <= day <= stop]
    if not inside:
        raise DataError(
            f"{log.root} has no impressions from {start} to {stop}: it has {days[0]} to {days[-1]}; "
            "choose days among these"
        )
    # A label of a day the log does not reach would look like "nothing happened".
    return start, min(stop, max(days[-1], *log.days("feedback")))


def _labels_until(log: InteractionLog, last: date, asked: str) -> date:
    if not asked:
        return last
    until = parse_date("--labels-until", asked)
    if until < last:
        raise ConfigError(f"--labels-until {until} is before the last day scored, {last}; choose a later one")
    return min(until, max(last, *log.days("feedback")))


def snapshots(bundle: Bundle, log: Path, runs: Path, until: date) -> list[DaySnapshot]:
    """Build what is missing of the chain that a bundle's features need, with a progress bar."""
    with bar("features") as on_period:
        return build_snapshots(InteractionLog(log), until, bundle.config, Stages(runs / "stages"), on_period)


def print_report(report: EvalReport, console: Console) -> None:
    """Print the leak check, then one table per head and one for the lists, simple systems below the model."""
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


def parse_date(flag: str, text: str) -> date:
    """Read one day.

    Raises: ConfigError naming the flag.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{flag} {text!r} is no date; write YYYY-MM-DD") from None
