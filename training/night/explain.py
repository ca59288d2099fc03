"""What a night would do, stage by stage, and why; nothing is built, and nothing is written."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

from features.build import periods
from features.sources.journal import num_pending
from recsys.errors import DataError
from recsys.records import Verdict
from recsys.stages import MANIFEST, NO_RESULT, NotBuiltError, read_manifest
from training.differences import differences, short
from training.night.extent import PUBLISH, Part, stages_between
from training.night.go_live import Pointers, stays
from training.night.night import Night
from training.night.plan import require_days
from training.night.run import begin, check_names
from training.night.step import Stage, Step
from training.progress import say

INGEST, CHECK_FILES, PLAN = "ingest", "check_files", "plan"
_SHOWN, _LETTERS = 3, 24
"""So many differences are named, and so many letters of each value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What would become of one stage."""

    stage: str
    does: Literal["done", "run", "stop"]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What one night would do."""

    date: date
    stages: tuple[Planned, ...]

    @property
    def stops(self) -> bool:
        """Tell whether the night would be refused."""
        return any(stage.does == "stop" for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {"date": str(self.date), "dry_run": True, "stages": [asdict(stage) for stage in self.stages]}


def explain_night(night: Night, part: Part) -> DryRun:
    """Say what each stage of a night would do now.

    Raises: as the night itself, for what is wrong with config, log or the live bundle.
    """
    check_names(night.config)
    looking = replace(night, reuse=replace(part.reuse(say), look=True))
    made = begin(looking, pointers=False)
    maker: dict[str, str] = {}
    found: list[Planned] = []
    for stage in stages_between(part.start_at, part.stop_after):
        if any(planned.does == "stop" for planned in found):
            break
        planned, output = _look(stage, looking, made, maker)
        found.append(planned)
        if stage.output is not None and planned.does == "done":
            made[stage.output] = output
        elif stage.output is not None:
            maker[stage.output] = stage.name
        if stage.name == INGEST and planned.does == "run":
            maker["days"] = stage.name
    return DryRun(date=night.date, stages=tuple(found))


def _look(
    stage: Stage, night: Night, made: Mapping[str, Any], maker: Mapping[str, str]
) -> tuple[Planned, Any]:
    """Look at one stage. Args: made: what is there; maker: output -> the stage that would make it."""
    if stage.name in (CHECK_FILES, PLAN) and INGEST not in maker.values():
        refused = _refused(stage, night, made, maker)
        if refused is not None:
            return Planned(stage=stage.name, does="stop", why=refused), None
    unknown = [name for name in (*stage.inputs, stage.output or "") if name in maker]
    if unknown:
        return _run(stage, f"it takes what {maker[unknown[0]]} would make"), None
    if stage.name == INGEST:
        return _ingest(stage, night), None
    if stage.name == PUBLISH:
        return _publish(stage, night, made), None
    if stage.output is None:
        return _run(stage, "it runs every night"), None
    try:
        output = Step.of(stage, night, made).run()
    except NotBuiltError as error:
        if stage.name in night.reuse.ready:
            why = f"it has to be done, and is not: {error.why}"
            return Planned(stage=stage.name, does="stop", why=why), None
        return _run(stage, _why(night, error)), None
    except DataError as error:
        return Planned(stage=stage.name, does="stop", why=str(error)), None
    return Planned(stage=stage.name, does="done", why=_said(output)), output


def _refused(stage: Stage, night: Night, made: Mapping[str, Any], maker: Mapping[str, str]) -> str | None:
    """Say why the night would be refused for its files, or for too few days; None where they are sound.

    A day's rows may still break rules: that is seen when it is built.
    """
    try:
        if stage.name == CHECK_FILES:
            Step.of(stage, night, made).run()
        elif "days" in maker:
            known = periods(night.log, night.date, night.config)
            shown = set(night.log.days("impressions"))
            filled = [i for i, period in enumerate(known) if shown.intersection(period.days)]
            require_days([period.day for period in known], filled, night.config)
    except DataError as error:
        return str(error)
    return None


def _run(stage: Stage, why: str) -> Planned:
    return Planned(stage=stage.name, does="run", why=why)


def _ingest(stage: Stage, night: Night) -> Planned:
    pending = num_pending(night.log, night.config.timezone)
    if pending:
        return _run(stage, f"{pending} journal files are not in the log yet")
    return Planned(stage=stage.name, does="done", why="the journal has nothing new")


def _publish(stage: Stage, night: Night, made: Mapping[str, Any]) -> Planned:
    live, current = made["live"], night.registry.current()
    if live is None or made["proved"].verdict is not Verdict.PROMOTE:
        return Planned(stage=stage.name, does="done", why="nothing is to go live")
    if live == current:
        return Planned(stage=stage.name, does="done", why=f"{live} is live")
    ending = stays(night, live, made["champion"], Pointers(registry=current, store=None))
    if ending is not None:
        return Planned(stage=stage.name, does="done", why=str(ending.reason))
    return _run(stage, f"{live} goes live; {current or 'nothing'} is live")


def _said(output: Any) -> str:
    match output:
        case Path() | None:
            return "there is a result of these inputs" if output else "there is nothing to do"
        case str():
            return f"{output} is there"
        case _:
            return "nothing has to be built"


def _why(night: Night, error: NotBuiltError) -> str:
    """Say why a stage would be built, and what differs from the newest result of its kind."""
    day = error.inputs.get("day")
    why = error.why if day is None else f"{day}: {error.why}"
    if error.why != NO_RESULT:
        return why
    done = sorted(
        (night.stages.root / error.name).glob(f"[!.]*/{MANIFEST}"), key=lambda path: path.stat().st_mtime_ns
    )
    before = [inputs for path in done if (inputs := _inputs_of(path.parent)).get("day") == day]
    return f"{why}; {difference(before[-1], error.inputs)}" if before else why


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name what differs between the inputs of two results."""
    found = differences(before, now)
    named = ", ".join(
        f"{key} ({short(old, _LETTERS)}, now {short(new, _LETTERS)})" for key, old, new in found[:_SHOWN]
    )
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"the newest one differs in {named}{more}"


def _inputs_of(folder: Path) -> dict[str, Any]:
    try:
        inputs: dict[str, Any] = read_manifest(folder)["inputs"]
    except (OSError, ValueError, KeyError):
        return {}
    return inputs
