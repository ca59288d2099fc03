"""`recsys tune model`: learning rates, trunk, weights of losses, searched on validation days."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from features.build import build_snapshots
from recsys.config import load_config
from recsys.log import InteractionLog
from recsys.stages import Stages
from training.evaluation.command import parse_date
from training.night.run import check_names
from training.progress import bar
from training.report.render import open_folder
from training.threads import use_threads
from training.tune.model.bench import ModelBench
from training.tune.model.search import MEAN, ModelReport, best_toml, tune_model
from training.tune.render import write_search
from training.tune.study import Budget


def tune_model_command(
    config: Annotated[Path, typer.Option("--config", help="TOML file to start from; [tune] says the space.")],
    log: Annotated[Path, typer.Option("--log", help="Folder of the interaction log.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html, report.json, best.toml.")],
    storage: Annotated[
        Path | None, typer.Option(help="SQLite file of the search, to resume; default: OUT/study.db.")
    ] = None,
    day: Annotated[str, typer.Option("--date", help="The night, YYYY-MM-DD; default: the log's last.")] = "",
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier runs included.")] = 50,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="Stop after so long.")] = None,
    objective: Annotated[str, typer.Option(help="mean, pareto, or one loss (a head, retrieval).")] = MEAN,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Folder whose feature stages are used and kept.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Search a better config on the validation days of a night; its gate's day stays unseen."""
    settings = load_config(config)
    check_names(settings)
    use_threads(settings.training.threads)
    open_folder(out)
    budget = Budget.of(trials, seconds)
    source = InteractionLog(log)
    night = parse_date("--date", day) if day else source.require_days("impressions")[-1]
    with ExitStack() as stack:
        scratch = runs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-tune-")))
        with bar("features") as on_period:
            chain = build_snapshots(source, night, settings, Stages(scratch / "stages"), on_period)
        with bar("trials") as on_trial:
            bench = ModelBench(chain, settings)
            report = tune_model(bench, objective, storage or out / "study.db", budget, on_trial)
    files = write_model(report, best_toml(settings, report), out)
    if as_json:
        print(report.model_dump_json(indent=1))
    else:
        _print(report, files)


def write_model(report: ModelReport, toml: str, out: Path) -> list[Path]:
    """Write report.html, report.json and best.toml into a folder."""
    names = list(report.importance)
    ended = [t for t in report.trials if t.state == "complete"]
    marks = [
        (float(n), t.values[names[0]], "knee" if t.number == report.best else "front", f"trial {t.number}")
        for n, t in enumerate(ended, 1)
    ]
    ranked = sorted(
        report.trials, key=lambda t: (t.state != "complete", -next(iter(t.values.values()), -1.0))
    )
    return write_search(
        report, "model.html.j2", ("best.toml", toml), out, marks=marks, names=names, ranked=ranked
    )


def _print(report: ModelReport, files: list[Path]) -> None:
    console = Console()
    table = Table("validation loss", "as given", "best", "improvement", box=None)
    for name, value in report.baseline.items():
        best = report.best_losses[name]
        table.add_row(name, f"{value:.5f}", f"{best:.5f}", f"{100 * (value - best) / value:+.2f} %")
    console.print(table, highlight=False)
    line = report.best_line
    for key, setting in (line.settings if line else {}).items():
        console.print(f"  {key} = {setting}", highlight=False, markup=False)
    for note in report.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    console.print("wrote " + ", ".join(str(file) for file in files), highlight=False, soft_wrap=True)
