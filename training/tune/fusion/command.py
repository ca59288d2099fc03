"""`recsys tune fusion`: weights of the score, searched on days that a bundle has not learnt from."""

from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from recsys.bundle import Bundle
from recsys.config import build_fusion, load_config
from recsys.errors import ConfigError
from recsys.fusion import FORMULAS, Fusion
from recsys.log import InteractionLog
from recsys.registry import Registry
from recsys.simulator.shop import SHOP_FILE, Shop
from training.evaluation.command import load_reproducible, require_version, snapshots
from training.predict import BundlePredictor
from training.progress import bar
from training.report.render import open_folder
from training.threads import use_threads
from training.tune.fusion.report import FusionReport
from training.tune.fusion.tune import read_material, tune_fusion, unseen_days
from training.tune.render import write_search
from training.tune.study import Budget


def tune_fusion_command(
    log: Annotated[Path, typer.Option("--log", help="Folder of the interaction log.")],
    runs: Annotated[Path, typer.Option("--runs", help="Folder of bundles and registry.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html, report.json, fusion.toml.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file of the current weights; default: the bundle's."),
    ] = None,
    version: Annotated[str, typer.Option("--bundle", help="Bundle version; default: the live one.")] = "",
    days: Annotated[int, typer.Option(min=1, help="At most so many of the last days.")] = 7,
    trials: Annotated[int, typer.Option(min=1, help="Weights to try, those of earlier runs included.")] = 256,
    seconds: Annotated[float | None, typer.Option(min=0.0, help="Stop searching after so long.")] = None,
    formula: Annotated[str, typer.Option(help="Formula to search; default: the current one.")] = "",
    top: Annotated[int, typer.Option("--top", min=1, help="How many places count.")] = 10,
    storage: Annotated[
        Path | None, typer.Option(help="SQLite file of the search, to resume; default: OUT/study.db.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the search and of the intervals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Search the weights of the score offline: Pareto front of the tasks' values, and its knee."""
    if formula and formula not in FORMULAS:
        raise ConfigError(f"--formula {formula!r} is unknown; known: {', '.join(FORMULAS)}")
    open_folder(out)
    bundle = load_reproducible(require_version(Registry(runs), version))
    current = _current(bundle, config)
    use_threads(bundle.config.training.threads)
    predictor, source = BundlePredictor(bundle), InteractionLog(log)
    span = unseen_days(predictor, source, days)
    chain = snapshots(bundle, log, runs, max(span[1], *source.days("feedback")))
    material = read_material(predictor, source, chain, span)
    simulated = (log / "truth" / SHOP_FILE).is_file()
    with bar("search") as on_trial:
        report = tune_fusion(
            material,
            current,
            formula or current.formula,
            storage or out / "study.db",
            Budget.of(trials, seconds),
            k=top,
            seed=seed,
            shop=Shop.from_log(log) if simulated else None,
            on_trial=on_trial,
        )
    files = write_fusion(report, out)
    if as_json:
        print(report.model_dump_json(indent=1))
    else:
        _print(report, files)


def _current(bundle: Bundle, config: Path | None) -> Fusion:
    """Give the weights to start from; a config of other tasks than the bundle's is refused."""
    own = bundle.manifest.fusion
    if config is None:
        return own
    read = load_config(config)
    given = build_fusion(read.tasks, read.fusion)
    if set(given.terms) != set(own.terms):
        raise ConfigError(
            f"--config {config} has the tasks {', '.join(given.terms)}, {bundle.version} has "
            f"{', '.join(own.terms)}; pass the config that the bundle was made with"
        )
    return given


def write_fusion(report: FusionReport, out: Path) -> list[Path]:
    """Write report.html, report.json and fusion.toml into a folder."""
    named = [("current", report.current), *(("", point) for point in report.front)]
    points = [("knee" if point.fusion == report.recommended.fusion else name, point) for name, point in named]
    planes = []
    for across, up in combinations(report.current.found, 2):
        marks: list[tuple[float, float, str, str]] = [
            (p.found[across], p.found[up], n or "front", _weights(p.fusion)) for n, p in reversed(points)
        ]
        planes.append((across, up, marks))
    values: dict[str, Any] = {"points": points, "planes": planes}
    return write_search(report, "fusion.html.j2", ("fusion.toml", report.toml), out, **values)


def _print(report: FusionReport, files: list[Path]) -> None:
    console = Console()
    console.print(
        f"{report.version}, {report.days[0]} to {report.days[-1]}: {report.requests:,} lists, "
        f"{report.trials} trials, {len(report.front)} on the front",
        highlight=False,
    )
    for candidate in report.candidates:
        verdicts = report.verdicts(candidate)
        table = Table("value", "current", "these", "difference, 95 %", "verdict", box=None)
        for source, effects in (
            ("re-ranked", candidate.effects),
            ("doubly robust", candidate.off_policy),
            ("truth", candidate.truth),
        ):
            for name, e in effects.items():
                said = verdicts[source][name]
                low, high = e.ci_low or 0.0, e.ci_high or 0.0
                row = [f"{e.a:.5f}", f"{e.b:.5f}", f"{e.difference:+.5f} [{low:+.5f}, {high:+.5f}]", said]
                table.add_row(f"{source}: {name}", *row)
        console.print(f"\n{candidate.name}: {_weights(candidate.fusion)}", style="bold", highlight=False)
        console.print(table, highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    console.print(f"\n{report.toml}", highlight=False, markup=False)
    console.print("wrote " + ", ".join(str(file) for file in files), highlight=False, soft_wrap=True)


def _weights(fusion: Fusion) -> str:
    return ", ".join(f"{name} {term.weight:.4g}" for name, term in fusion.terms.items())
