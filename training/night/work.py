"""What each stage of a night does, but for those of `training.night.verdict` and `training.night.bundles`.

Its order, inputs and config keys stand in `training.night.stages`. A function takes its Step and its inputs
by name; what takes long is built into a folder that is kept.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.build import build_snapshots, remove_outdated
from features.days import Days
from features.sources.journal import ingest_journal
from features.validation.ingest import require_sound
from features.validation.report import Validation, write_report
from recsys.bundle import Bundle, load_bundle
from recsys.config import period_start
from recsys.errors import DataError
from recsys.records import NightRecord, Ruling, Verdict
from recsys.registry import Registry
from recsys.stages import read_manifest as read_stage
from recsys.stages import unfinished, write_json
from recsys.user_key import UserKey
from training.curves.night import recorded
from training.fit_progress import fit_progress
from training.gate import Decision
from training.host_choice import MIN_STEPS, HostChoice, Trial, is_open, measure_choice
from training.night.go_live import Pointers, go_live
from training.night.lineage import lineage_of
from training.night.night import Ending, Night
from training.night.plan import NEVER, Lineage, NightPlan, hull, lag, plan_night
from training.night.step import LOSSES, Step
from training.night.verdict import read_beside
from training.progress import bar, say
from training.train import TrainedModel, begin_fit, num_steps, train
from training.trainer.saver import Saver
from training.warm_start import Previous, new_inputs
from training.weights import load_previous, save_trained


def ingest(step: Step) -> None:
    """Compact the journal of what was served into the log."""
    ingest_journal(step.night.log, step.config.timezone)


def check_files(step: Step) -> None:
    """Refuse a date without rows, and files without their columns, before anything is built."""
    night = step.night
    days = night.log.require_days("impressions")
    start = period_start(night.date, step.config.period)
    if not any(start <= day <= night.date for day in days):
        raise DataError(
            f"{night.date} has 0 usable impressions in {night.log.root}, which has {days[0]} to {days[-1]}; "
            "choose one of its days, or write this day's log and run again"
        )
    broken = night.ingest.check_files(night.date)
    if broken is not None:
        require_sound(broken, _report(night, broken))


def build_features(step: Step) -> Days:
    """Build the snapshots of all days up to the night; each has a folder of its own.

    Those that were built of an earlier state of the log, as updates during the day do, are removed.
    """
    night = step.night
    with bar("features") as on_period:
        days = build_snapshots(night.log, night.date, step.config, night.stages, on_period)
    if not night.reuse.look:
        remove_outdated(days, night.stages)
    return days


def validate(step: Step, *, days: Days, champion: str | None) -> Validation:
    """Check every day that no night has let through yet; write the report; stop at errors."""
    night = step.night
    since = night.registry.require_record(champion).night if champion else None
    with bar("validate") as on_day:
        validation = night.ingest.check_days(days, since, on_day)
    require_sound(validation, _report(night, validation))
    return validation


def _report(night: Night, validation: Validation) -> str:
    """Write the report, and say where it is; a run that only looks writes none."""
    return "none, this is a dry run" if night.reuse.look else str(write_report(validation, night.reports))


def plan(step: Step, *, days: Days, previous: Bundle | None) -> NightPlan:
    """Say which day is for what."""
    if previous is None:
        return plan_night(days, step.config, None)
    record, config = step.night.registry.require_record(previous.version), step.config
    came = new_inputs(Previous.of(previous, config), config)
    return plan_night(days, config, Lineage.of(record, previous.config.tasks, config.tasks, came))


def choose(step: Step, *, days: Days, plan: NightPlan, previous: Bundle | None) -> HostChoice:
    """Choose precision, processes and form of the tables, before the first step: measured if that pays."""
    config = step.config

    def build(folder: Path) -> dict[str, Any]:
        before = None if previous is None or plan.cold else Previous.of(previous, config)
        epochs = config.training.epochs if before is None else 1
        training, choice = config.training, HostChoice.unmeasured(config.training)
        measured: dict[str, float] = {}
        measure = is_open(training) and num_steps(days, plan.train, config, epochs) >= MIN_STEPS
        if measure or (choice.processes > 1 and training.tables == "auto"):
            first = begin_fit(
                days,
                plan.train,
                config,
                before,
                epochs,
                config.tasks,
                choice,
                folder=unfinished(folder),
            )
            if not measure:
                choice = choice.with_tables(training, first.tables.specs.values())
            else:
                trial = Trial.of(first.inputs, first.ranker, first.tables)
                choice, measured = measure_choice(training, trial)
                say(f"train: {choice}; rows/s: {measured}")
        if training.sharding and choice.tables == "replicated":
            say(
                f"train: [training.sharding] is not read, as no table is cut ({choice}); take it out, or "
                'cut them with [training] tables = "sharded"'
            )
        return {"choice": asdict(choice), "rows_per_second": measured}

    return HostChoice(**read_stage(step.kept(build))["choice"])


def catch_up(
    step: Step,
    *,
    days: Days,
    plan: NightPlan,
    previous: Bundle | None,
    choice: HostChoice,
    user_key: UserKey | None,
) -> Path | None:
    """Show heads and inputs that came since the days that the others know; None when there are none."""
    if not plan.catch_up:
        return None
    assert previous is not None

    def build(folder: Path) -> dict[str, Any]:
        before = Previous.of(previous, step.config)
        periods = {task.name: NEVER for task in step.config.tasks} | plan.catch_up
        epochs = step.config.training.epochs
        title = "new inputs" if plan.new_inputs else "new heads"
        return _learn(step, folder, title, days, periods, before, epochs, choice, user_key, came=plan)

    return step.kept(build)


def train_weights(
    step: Step,
    *,
    days: Days,
    plan: NightPlan,
    previous: Bundle | None,
    caught_up: Path | None,
    choice: HostChoice,
    user_key: UserKey | None,
) -> Path:
    """Train from scratch, or continue the champion's evaluated weights, to which new heads were added."""

    def build(folder: Path) -> dict[str, Any]:
        before = None
        if previous is not None and not plan.cold:
            config = step.config
            before = Previous.of(previous, config) if caught_up is None else load_previous(caught_up, config)
        epochs = step.config.training.epochs if before is None else 1
        return _learn(step, folder, "train", days, plan.train, before, epochs, choice, user_key)

    return step.kept(build)


def refit(
    step: Step, *, days: Days, plan: NightPlan, evaluated: str, decision: Decision, choice: HostChoice
) -> Path | None:
    """Continue one pass over the calibration and gate days, after PROMOTE."""
    if decision.verdict is not Verdict.PROMOTE or not step.config.training.refit:
        return None

    def build(folder: Path) -> dict[str, Any]:
        before = Previous.of(load_bundle(step.night.registry.path(evaluated)), step.config)
        return _learn(step, folder, "refit", days, plan.refit, before, 1, choice)

    return step.kept(build)


def record(
    step: Step,
    *,
    days: Days,
    plan: NightPlan,
    champion: str | None,
    previous: Bundle | None,
    caught_up: Path | None,
    weights: Path,
    scores: Path,
    evaluated: str,
    live: str | None,
    proved: Decision,
    validation: Validation,
    seconds: Mapping[str, float],
) -> None:
    """Write the record of what the night made, or add the verdict to one that is there: none is stale."""
    registry = step.night.registry
    ruling = _gates_ruling(proved, champion)
    for version in {evaluated, live or evaluated, *_refitted_from(registry, evaluated)}:
        kept = registry.record(version)
        made = kept or NightRecord(
            version=version,
            night=step.night.date,
            verdict=proved.verdict,
            champion=champion,
            evaluated=evaluated,
            cold_since=plan.cold_since,
            start=_start(plan, previous, caught_up or weights),
            trained_until=plan.trained_until,
            gated=plan.gated,
            lags={task.name: lag(task, step.config) for task in step.config.tasks},
            checks=proved.checks,
            list_value=proved.list_value,
            power=proved.power,
            beside=read_beside(scores),
            findings=validation.counts,
            accepted=tuple(validation.accepted),
            seconds=round(sum(seconds.values()), 2),
            index=registry.index(version),
            lineage=lineage_of(days, plan, step.config.training.seed, seconds),
        )
        ruled = made.ruled(ruling)
        if ruled != kept:
            found = {"champion": champion, "findings": validation.counts, **_proof(proved)}
            registry.write_record(ruled.model_copy(update=found))


def _gates_ruling(proved: Decision, champion: str | None) -> Ruling:
    return Ruling(
        at=datetime.now(UTC),
        by="gate",
        verdict=proved.verdict,
        champion=champion,
        reasons=tuple(proved.reasons),
    )


def _proof(proved: Decision) -> dict[str, object]:
    """Give the fields of a record that show what a verdict rests on."""
    return {"checks": proved.checks, "list_value": proved.list_value, "power": proved.power}


def _refitted_from(registry: Registry, evaluated: str) -> list[str]:
    """List the versions that a verdict on an evaluated one is about as well; an update has its own."""
    found = []
    for version in registry.versions():
        if version[:10] == evaluated[:10] and (record := registry.record(version)) is not None:
            found += [version] if record.evaluated == evaluated and record.known_until is None else []
    return found


def publish(
    step: Step, *, days: Days, champion: str | None, live: str | None, pointed: Pointers, proved: Decision
) -> Ending | None:
    """Publish the users, move the pointers, collect what nobody needs; the record says how it ended."""
    if live is None or proved.verdict is not Verdict.PROMOTE:
        return None
    ending = go_live(step.night, step.config.store, days[-1], live, champion, pointed)
    record = step.night.registry.require_record(live)
    if ending.live or ending.verdict is not Verdict.PROMOTE:
        reasons = (ending.reason,) if ending.reason is not None else ()
        ruling = Ruling(at=datetime.now(UTC), by="activation", verdict=ending.verdict, reasons=reasons)
        ruled = record.ruled(ruling)
        if ruled != record:
            step.night.registry.write_record(ruled)
    return ending


def _learn(
    step: Step,
    folder: Path,
    title: str,
    days: Days,
    periods: Mapping[str, tuple[int, int]],
    before: Previous | None,
    epochs: int,
    choice: HostChoice,
    user_key: UserKey | None = None,
    *,
    came: NightPlan | None = None,
) -> dict[str, Any]:
    """Train into a stage's folder, from the last checkpoint that a killed run left.

    Args: came: its new heads and inputs learn, and nothing else does; the others as `train`.
    """
    place = unfinished(folder)
    saver = Saver(place, step.config.training.checkpoint_minutes, say)
    rows = epochs * sum(days.num_impressions(i) for i in hull(periods))
    with (
        fit_progress(title, rows) as shown,
        recorded(step.night, step.stage.name, folder, choice) as recorders,
    ):
        trained = train(
            days,
            dict(periods),
            step.config,
            before,
            epochs,
            watchers=[shown, saver, *recorders],
            start=saver.read(),
            folder=place,
            diverged=step.night.diverged,
            alone=came.new_heads if came is not None else (),
            new_inputs=came is not None and bool(came.new_inputs),
            choice=choice,
            user_key=user_key,
        )
    return _save(trained, folder)


def _save(trained: TrainedModel, folder: Path) -> dict[str, Any]:
    save_trained(trained, folder)
    write_json(folder / LOSSES, trained.log.losses)
    carried = trained.carried.sentence() if trained.carried else None
    return {"rows": trained.log.rows, "losses": trained.log.mean_losses(), "carried": carried}


def _start(plan: NightPlan, previous: Bundle | None, first: Path) -> str:
    """Say what the night's weights started from. Args: first: the first stage that trained them."""
    if previous is None:
        return "cold: nothing was live"
    if not plan.cold:
        return f"warm, from {previous.version}: {read_stage(first)['carried']}"
    return "cold: " + ("a restart was due" if plan.restart else f"no head goes on from {previous.version}")
