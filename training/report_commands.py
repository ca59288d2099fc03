"""Commands of the training room that say what a version is worth, and find better: evaluate, report, tune."""

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from features.definitions import read_config
from recsys.options import (
    FromOption,
    JsonOption,
    LogOption,
    NightOption,
    OutOption,
    RequiredConfigOption,
    RunsOption,
    SeedOption,
    StagesOption,
    ToOption,
    parse_date,
    put_json,
)

BundleOption = Annotated[str, typer.Option("--bundle", help="A bundle version; default: the live one.")]
UsersOption = Annotated[
    int, typer.Option("--users", min=1, help="At most so many users a period get ranked lists.")
]
AllUsersOption = Annotated[bool, typer.Option("--all-users", help="Rank for every user.")]
BaselinesOption = Annotated[bool, typer.Option(help="Also score the simple systems.")]
ReplicatesOption = Annotated[int, typer.Option(min=100, help="Bootstrap draws.")]
AlphaOption = Annotated[
    float, typer.Option(min=0.001, max=0.5, help="Error rate shared by the primary comparisons.")
]
TrialsOption = Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier runs included.")]
SecondsOption = Annotated[float | None, typer.Option(min=0.0, help="Stop searching after so many seconds.")]
StorageOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="SQLite file of the search, to resume; default: OUT/study.db."),
]


def evaluate_command(
    log: LogOption,
    runs: RunsOption,
    first: FromOption,
    last: ToOption,
    labels_until: Annotated[
        date | None,
        typer.Option(
            "--labels-until",
            metavar="YYYY-MM-DD",
            parser=parse_date,
            help="The last day whose feedback may be a label; default: the last day scored.",
        ),
    ] = None,
    bundle: BundleOption = "",
    json_file: JsonOption = None,
    users: UsersOption = 1000,
    seed: SeedOption = 0,
    *,
    all_users: AllUsersOption = False,
    baselines: BaselinesOption = True,
    fitted: Annotated[
        bool, typer.Option(help="Among the simple systems, also those that must be fitted first.")
    ] = True,
    lightgbm: Annotated[bool, typer.Option("--lightgbm", help="One more baseline; extra `bench`.")] = False,
) -> None:
    """Score a frozen bundle on later days; features roll forward day by day, the model does not move."""
    from training.evaluation.console import print_report
    from training.evaluation.from_log import evaluate_bundle

    report = evaluate_bundle(
        log,
        runs,
        bundle,
        first,
        last,
        labels_until=labels_until,
        max_users=None if all_users else users,
        seed=seed,
        baselines=baselines,
        fitted=fitted,
        lightgbm=lightgbm,
    )
    put_json(report, json_file, lambda: print_report(report))


def report_ab_command(
    log: LogOption,
    runs: RunsOption,
    a: Annotated[str, typer.Option("--a", help="Version A, usually the live one.")],
    b: Annotated[str, typer.Option("--b", help="Version B.")],
    first: FromOption,
    last: ToOption,
    out: OutOption,
    json_file: JsonOption = None,
    users: UsersOption = 1000,
    replicates: ReplicatesOption = 1000,
    alpha: AlphaOption = 0.05,
    seed: SeedOption = 0,
    *,
    all_users: AllUsersOption = False,
    baselines: BaselinesOption = True,
) -> None:
    """Compare two bundles on the same days: what is better, how sure that is, and what it rests on.

    Writes report.html, report.md and report.json.
    """
    from training.report.ab_pages import write_report
    from training.report.console import print_decision
    from training.report.from_log import compare_bundles
    from training.report.report_files import open_folder

    open_folder(out)
    report = compare_bundles(
        log,
        runs,
        (a, b),
        first,
        last,
        max_users=None if all_users else users,
        replicates=replicates,
        alpha=alpha,
        seed=seed,
        baselines=baselines,
    )
    files = write_report(report, out)
    put_json(report, json_file, lambda: print_decision(report, files))


def report_transfer_command(
    config: RequiredConfigOption,
    log: LogOption,
    out: OutOption,
    day: NightOption = None,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Trainings of each model.")] = 5,
    runs: StagesOption = None,
    replicates: ReplicatesOption = 1000,
    alpha: AlphaOption = 0.05,
    json_file: JsonOption = None,
) -> None:
    """Train the heads together and alone, at the same size in total, and say whether to share.

    Writes report.html, report.md and report.json.
    """
    from training.report.report_files import open_folder
    from training.report.transfer.console import print_advice
    from training.report.transfer.from_log import transfer_on_log
    from training.report.transfer.transfer_pages import write_transfer

    settings = read_config(config)
    open_folder(out)
    report = transfer_on_log(settings, log, day, seeds=seeds, runs=runs, replicates=replicates, alpha=alpha)
    files = write_transfer(report, out)
    put_json(report, json_file, lambda: print_advice(report, files))


def tune_fusion_command(
    log: LogOption,
    runs: RunsOption,
    out: OutOption,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="TOML file of the current weights; default: the bundle's."
        ),
    ] = None,
    bundle: BundleOption = "",
    days: Annotated[int, typer.Option(min=1, help="At most so many of the last days.")] = 7,
    trials: TrialsOption = 256,
    seconds: SecondsOption = None,
    formula: Annotated[str, typer.Option(help="Formula to search; default: the current one.")] = "",
    top: Annotated[int, typer.Option("--top", min=1, help="How many places count.")] = 10,
    storage: StorageOption = None,
    seed: SeedOption = 0,
    json_file: JsonOption = None,
) -> None:
    """Search the weights of the score offline: Pareto front of the tasks' values, and its knee.

    Writes report.html, report.json and fusion.toml.
    """
    from training.report.report_files import open_folder
    from training.tune.fusion.console import print_fusion
    from training.tune.fusion.from_log import tune_fusion_on_log
    from training.tune.fusion.fusion_pages import write_fusion

    open_folder(out)
    report = tune_fusion_on_log(
        log,
        runs,
        bundle,
        storage or out / "study.db",
        config=config,
        days=days,
        trials=trials,
        seconds=seconds,
        formula=formula,
        top=top,
        seed=seed,
    )
    files = write_fusion(report, out)
    put_json(report, json_file, lambda: print_fusion(report, files))


def tune_model_command(
    config: RequiredConfigOption,
    log: LogOption,
    out: OutOption,
    storage: StorageOption = None,
    day: NightOption = None,
    trials: TrialsOption = 50,
    seconds: SecondsOption = None,
    objective: Annotated[str, typer.Option(help="mean, pareto, or one loss (a head, retrieval).")] = "mean",
    runs: StagesOption = None,
    json_file: JsonOption = None,
) -> None:
    """Search a better config on the validation days of a night; its gate's day stays unseen.

    [tune] of the config says what may change. Writes report.html, report.json and best.toml.
    """
    from training.report.report_files import open_folder
    from training.tune.model.console import print_model
    from training.tune.model.from_log import tune_model_on_log
    from training.tune.model.model_pages import write_model
    from training.tune.model.search import best_toml

    settings = read_config(config)
    open_folder(out)
    report = tune_model_on_log(
        settings,
        log,
        day,
        storage or out / "study.db",
        trials=trials,
        seconds=seconds,
        objective=objective,
        runs=runs,
    )
    files = write_model(report, best_toml(settings, report), out)
    put_json(report, json_file, lambda: print_model(report, files))
