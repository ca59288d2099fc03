"""Commands of the training room that make versions and keep them: nightly, train, plan, bundle."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.definitions import read_config
from recsys.config import RunConfig
from recsys.errors import ConfigError, DataError
from recsys.options import (
    ConfigOption,
    DayRange,
    JsonOption,
    LogOption,
    NightOption,
    RunsOption,
    parse_date,
    parse_range,
    put_json,
    put_json_line,
)

if TYPE_CHECKING:
    from training.night.night import NightResult, StoppedNight

AcceptOption = Annotated[
    str,
    typer.Option(
        "--accept-findings",
        metavar="CODE[@DATE],...",
        help="Let these findings of the night's day (or of DATE) pass, in this night and later ones.",
    ),
]

WritersOption = Annotated[
    str | None,
    typer.Option(
        "--writers",
        metavar="NAME,...",
        help="Where the curves of the learning go: tensorboard, mlflow; default: [training] writers.",
    ),
]


BackfillOption = Annotated[
    DayRange | None,
    typer.Option(metavar="A:B", parser=parse_range, help="Run every night from A to B instead of one."),
]
OneNightOption = Annotated[
    date | None,
    typer.Option("--date", metavar="YYYY-MM-DD", parser=parse_date, help="The night's business date."),
]
StartAtOption = Annotated[
    str | None,
    typer.Option("--start-at", metavar="STAGE", help="Run from this stage on; what is before must be done."),
]
StopAfterOption = Annotated[
    str | None, typer.Option("--stop-after", metavar="STAGE", help="Run up to this stage.")
]
ForceOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STAGE", help="Build this stage, and all that is made of it, once more; may be repeated."
    ),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--nproc", metavar="N", min=1, help="Train in N processes; default: [training] processes."),
]
IncrementalOption = Annotated[
    bool,
    typer.Option(
        "--incremental", help="Learn what became known since the live version was made, and go live."
    ),
]
InstantOption = Annotated[
    datetime | None,
    typer.Option(
        "--at",
        metavar="YYYY-MM-DDTHH:MM",
        formats=["%Y-%m-%dT%H:%M"],
        help="With --incremental: the instant, in UTC, up to which labels are known; default: now.",
    ),
]


def nightly_command(
    log: LogOption,
    runs: RunsOption,
    config: ConfigOption = None,
    day: OneNightOption = None,
    backfill: BackfillOption = None,
    accept: AcceptOption = "",
    start_at: StartAtOption = None,
    stop_after: StopAfterOption = None,
    force: ForceOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file of what is used again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and why; nothing is written.")
    ] = False,
    writers: WritersOption = None,
    json_file: JsonOption = None,
) -> int:
    """Retrain, prove the new bundle against the live one, publish or refuse.

    The JSON has one object a night, each on a line of its own; `version` is the night's if it is live.
    Exit codes: 0 PROMOTE, or stopped before a verdict, 10 HOLD, 11 HOLD_UNDERPOWERED, 15 CHECK_FAILED (of
    the last night), 13 where at least the third night in a row was held; errors have their own, also where a
    dry run sees them coming.
    """
    from training.console import print_dry_run
    from training.night.extent import Part
    from training.night.failures import ended_like_ctrl_c
    from training.night.nights import explain_nights, run_nights, with_training

    days = backfill if day is None else DayRange(day, day)
    if days is None or (day is not None and backfill is not None):
        raise ConfigError("give either --date YYYY-MM-DD or --backfill A:B")
    settings = with_training(read_config(config), writers=_names(writers))
    part = Part(start_at=start_at, stop_after=stop_after, force=tuple(force or ()), verify=verify)
    if dry_run:
        _refuse("--dry-run, which writes nothing,", {"--accept-findings": accept or None})
        refused = False
        for number, planned in enumerate(explain_nights(settings, log, runs, days, part)):
            put_json_line(planned.to_json(), json_file, partial(print_dry_run, planned), append=number > 0)
            refused |= planned.stops
        return DataError.exit_code if refused else 0
    code = 0
    with ended_like_ctrl_c():
        for number, night in enumerate(run_nights(settings, log, runs, days, accept=accept, part=part)):
            code = _put_night(night, json_file, append=number > 0)
    return code


def _put_night(night: "NightResult | StoppedNight", json_file: Path | None, *, append: bool) -> int:
    """Show a night, and give its exit code."""
    from training.console import print_night, print_stopped
    from training.night.night import StoppedNight

    if isinstance(night, StoppedNight):
        put_json_line(night.to_json(), json_file, partial(print_stopped, night), append=append)
        return 0
    for line in night.validation.lines:
        print(line, file=sys.stderr)
    put_json_line(night.to_json(), json_file, partial(print_night, night), append=append)
    return night.exit_code


def train_replay_command(
    step: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that the error named.")],
) -> None:
    """Make a step again at which a training diverged: its losses, their gradients, and bad values.

    The output is JSON.
    """
    from dataclasses import asdict

    from training.replay import replay

    print(json.dumps(asdict(replay(step)), indent=1))


def train_command(
    log: LogOption,
    runs: RunsOption,
    config: ConfigOption = None,
    day: NightOption = None,
    nproc: ProcessesOption = None,
    incremental: IncrementalOption = False,
    at: InstantOption = None,
    accept: AcceptOption = "",
    writers: WritersOption = None,
    json_file: JsonOption = None,
) -> int:
    """Run a night's stages up to its evaluated bundle; nothing is compared, nothing goes live.

    `recsys nightly` of the same date, and of the same choice of precision and processes, goes on from there.

    With --incremental, run it every hour of the day after a night: a new full version is made of the live
    one. The newest labels are held out ([updates] held_out): where a head is worse on them than the live
    version by more than [updates] margin, or no head has [updates] min_rows labels held out, that one stays.
    Exit codes: 0 live or nothing new, 10 HOLD, 11 HOLD_UNDERPOWERED (no head was compared).
    """
    if incremental:
        given = {"--date": day, "--nproc": nproc, "--accept-findings": accept or None, "--writers": writers}
        _refuse("--incremental", given)
        return _train_incremental(read_config(config), log, runs, at, json_file)
    _refuse("a night's training, without --incremental,", {"--at": at})
    from training.console import print_trained
    from training.night.nights import train_one, with_training

    settings = with_training(read_config(config), processes=nproc, writers=_names(writers))
    trained = train_one(settings, log, runs, day, accept=accept)
    put_json(trained.to_json(), json_file, partial(print_trained, trained))
    return 0


def _names(text: str | None) -> tuple[str, ...] | None:
    """Read names with commas between; none at all for an empty text."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _refuse(what: str, options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(f"{what} does not take {', '.join(given)}; leave it out")


def _train_incremental(
    config: RunConfig, log: Path, runs: Path, at: datetime | None, json_file: Path | None
) -> int:
    from training.incremental.run import show_update, update

    instant = datetime.now(UTC) if at is None else at.replace(tzinfo=UTC)
    done = update(config, log, runs, instant)
    put_json(done.to_json(), json_file, lambda: show_update(done))
    return 0 if done.verdict is None else done.verdict.exit_code


def plan_command(
    users: Annotated[float, typer.Option("--users", help="Rows of the table of users; 1e9 is a number.")],
    items: Annotated[float, typer.Option("--items", help="Rows of the table of items.")],
    dim: Annotated[int, typer.Option("--dim", help="Columns of both; a multiple of 4.")],
    gpus: Annotated[int, typer.Option("--gpus", help="How many GPUs.")],
    hbm: Annotated[float, typer.Option("--hbm", help="Memory of a GPU in GB (1e9 bytes).")],
    batch_size: Annotated[int, typer.Option("--batch-size", help="Rows a step and GPU.")] = 8192,
    history: Annotated[int, typer.Option("--history", help="Items looked up beside the candidate.")] = 30,
    reserve: Annotated[
        float, typer.Option("--reserve", help="Share of a GPU's memory that the tables may not have.")
    ] = 0.15,
    json_file: JsonOption = None,
) -> None:
    """Spread the embedding tables over GPUs that need not be there, with TorchRec's planner.

    Exits with 1 when they do not fit, and says what would.
    """
    from training.capacity import Fleet, Workload, plan_capacity, show_capacity

    rows = {"--users": users, "--items": items}
    for option, value in rows.items():
        if not 1 <= value < float("inf") or value != int(value):
            raise ConfigError(f"{option} {value:g}: give a whole number of rows, 1e9 for instance")
    if not 0 < hbm < float("inf"):
        raise ConfigError(f"--hbm {hbm:g}: give a GPU's memory in GB, 141 for instance")
    workload = Workload(
        users=int(users), items=int(items), dim=dim, batch_size=batch_size, history_length=history
    )
    fleet = Fleet(gpus=gpus, hbm_bytes=round(hbm * 1e9), reserved_share=reserve)
    plan = plan_capacity(workload, fleet)
    put_json(plan, json_file, lambda: show_capacity(plan))
    if not plan.fits:
        raise typer.Exit(1)
