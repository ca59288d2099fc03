"""STAGES: the night as a table. A row says which config keys a stage reads, what it takes and what it makes.

    ingest → check_files → features → validate → plan → train → bundle → evaluate → gate
           → refit → refit_bundle → record → publish

A stage gets a view of the config with its keys alone: reading another is an error. Stages that take long keep
their result in a folder named by a hash of that view and of their inputs, and are skipped when it is there.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import features.build
import features.validation.ingest
from features.build import build_snapshots
from features.days import Days
from features.sources.journal import ingest_journal
from features.validation.ingest import require_sound
from features.validation.report import Validation, write_report
from recsys.bundle import CONFIG_KEYS, Bundle, load_bundle, read_manifest
from recsys.config import period_start
from recsys.errors import DataError
from recsys.records import NightRecord, Verdict
from recsys.stages import write_json
from recsys.tasks import TaskSpec
from training.calibrate import fit_calibration
from training.evaluation.eval_report import EvalReport
from training.evaluation.evaluate import evaluate, score_rows
from training.gate import Decision, check_calibration, check_heads, check_lists, decide
from training.night import plan as plans
from training.night.go_live import go_live
from training.night.plan import NightPlan, lag, plan_night
from training.night.step import Stage, Step
from training.predict import BundlePredictor, day_logits
from training.progress import bar
from training.publish import write_night_bundle
from training.train import TrainedModel, train
from training.weights import load_trained, save_trained

RANKING_USERS = 500


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
        require_sound(broken, str(write_report(broken, night.reports)))


def build_features(step: Step) -> Days:
    """Build the snapshots of all days up to the night; each has a folder of its own."""
    night = step.night
    with bar("features") as on_period:
        return build_snapshots(night.log, night.date, step.config, night.stages, on_period)


def validate(step: Step, *, days: Days, champion: str | None) -> Validation:
    """Check every day that no night has let through yet; write the report; stop at errors."""
    night = step.night
    since = night.registry.require_record(champion).night if champion else None
    with bar("validate") as on_day:
        validation = night.ingest.check_days(days, since, on_day)
    require_sound(validation, str(write_report(validation, night.reports)))
    return validation


def plan(step: Step, *, days: Days, previous: Bundle | None) -> NightPlan:
    """Say which day is for what."""
    until = step.night.registry.require_record(previous.version).trained_until if previous else None
    return plan_night(days, step.config, until)


def train_weights(step: Step, *, days: Days, plan: NightPlan, previous: Bundle | None) -> Path:
    """Train from scratch, or continue the champion's evaluated weights."""

    def build(folder: Path) -> dict[str, Any]:
        epochs = step.config.training.epochs if previous is None else 1
        with bar("train") as on_rows:
            trained = train(days, plan.train, step.config, previous, epochs, on_rows)
        return _save(trained, folder)

    return step.kept(build)


def write_evaluated(
    step: Step, *, days: Days, plan: NightPlan, previous: Bundle | None, weights: Path
) -> str:
    """Calibrate the weights and write the bundle that is evaluated; give its version."""

    def build(_: Path) -> dict[str, Any]:
        config, trained = step.config, load_trained(weights, step.config)
        logits, rows = _calibration_rows(step, days, plan, trained)
        calibration = fit_calibration(config.tasks, logits, rows, config.calibration)
        parent = previous.version if previous else None
        version = write_night_bundle(
            step.night.registry, trained, calibration, config, days[-1], parent, refitted=False
        )
        return {"version": version}

    return step.kept_bundle(build)


def evaluate_both(
    step: Step, *, days: Days, plan: NightPlan, evaluated: str, previous: Bundle | None
) -> Path:
    """Score and measure challenger and champion on the same rows, both before their refit: equally fresh."""

    def build(folder: Path) -> dict[str, Any]:
        places = {task: [i] for task, i in plan.evaluate.items()}
        bundles = {"challenger": load_bundle(step.night.registry.path(evaluated)), "champion": previous}
        for name, bundle in bundles.items():
            if bundle is None:
                continue
            predictor = BundlePredictor(bundle)
            rows = score_rows(predictor, days, places)
            with bar("evaluate") as on_progress:
                report = evaluate(
                    predictor,
                    days,
                    places,
                    rows=rows,
                    max_users=RANKING_USERS,
                    seed=step.config.training.seed,
                    on_progress=on_progress,
                )
            rows.write_parquet(folder / f"{name}.parquet")
            write_json(folder / f"{name}.json", report.model_dump(mode="json"))
        return {}

    return step.kept(build)


def gate(step: Step, *, scores: Path, evaluated: str, previous: Bundle | None) -> Decision:
    """Decide between challenger and champion by what both were measured at."""
    config = step.config

    def build(folder: Path) -> dict[str, Any]:
        mine, rows = _scores(scores, "challenger")
        theirs, champion_rows = _scores(scores, "champion") if previous else (None, None)
        checks = check_heads(config.tasks, rows, champion_rows, config.gate, config.training.seed)
        calibration = read_manifest(step.night.registry.path(evaluated)).calibration
        checks += check_calibration(config.tasks, calibration, config.calibration)
        checks += check_lists(mine.ranking, theirs.ranking if theirs else None, config.gate)
        decision = decide(previous.version if previous else None, evaluated, checks)
        write_json(folder / "decision.json", decision.model_dump(mode="json"))
        return {"verdict": str(decision.verdict)}

    return Decision.model_validate_json((step.kept(build) / "decision.json").read_text())


def refit(step: Step, *, days: Days, plan: NightPlan, evaluated: str, decision: Decision) -> Path | None:
    """Continue one pass over the calibration and gate days, after PROMOTE."""
    if decision.verdict is not Verdict.PROMOTE or not step.config.training.refit:
        return None

    def build(folder: Path) -> dict[str, Any]:
        before = load_bundle(step.night.registry.path(evaluated))
        with bar("refit") as on_rows:
            trained = train(days, plan.refit, step.config, before, 1, on_rows)
        return _save(trained, folder)

    return step.kept(build)


def write_refitted(
    step: Step, *, days: Days, evaluated: str, decision: Decision, refitted: Path | None
) -> str | None:
    """Write the bundle that goes live, calibrated as it was evaluated; None when the night holds."""
    if decision.verdict is not Verdict.PROMOTE:
        return None
    if refitted is None:
        return evaluated

    def build(_: Path) -> dict[str, Any]:
        trained = load_trained(refitted, step.config)
        calibration = load_bundle(step.night.registry.path(evaluated)).manifest.calibration
        version = write_night_bundle(
            step.night.registry, trained, dict(calibration), step.config, days[-1], evaluated, refitted=True
        )
        return {"version": version}

    return step.kept_bundle(build)


def record(
    step: Step,
    *,
    plan: NightPlan,
    champion: str | None,
    evaluated: str,
    live: str | None,
    decision: Decision,
    validation: Validation,
    began: float,
) -> None:
    """Write the record of what the night made; a record that is there stays as it is."""
    registry = step.night.registry
    for version in {evaluated, live or evaluated}:
        if registry.record(version) is not None:
            continue
        registry.write_record(
            NightRecord(
                version=version,
                night=step.night.date,
                verdict=decision.verdict,
                champion=champion,
                evaluated=evaluated,
                trained_until=plan.trained_until,
                lags={task.name: lag(task, step.config) for task in step.config.tasks},
                checks=decision.checks,
                findings=validation.counts,
                accepted=tuple(validation.accepted),
                seconds=round(time.perf_counter() - began, 2),
            )
        )


def publish(step: Step, *, days: Days, champion: str | None, live: str | None, dry_run: bool) -> None:
    """Publish the users, move the pointer, collect what nobody needs."""
    if live is not None and not dry_run:
        go_live(step.night, step.config.store, days[-1], live, champion)


def _save(trained: TrainedModel, folder: Path) -> dict[str, Any]:
    save_trained(trained, folder)
    write_json(folder / "losses.json", trained.log.losses)
    return {"rows": trained.log.rows, "losses": trained.log.mean_losses()}


def _scores(folder: Path, name: str) -> tuple[EvalReport, pl.DataFrame]:
    report = EvalReport.model_validate_json((folder / f"{name}.json").read_text())
    return report, pl.read_parquet(folder / f"{name}.parquet")


def _calibration_rows(
    step: Step, days: Days, plan: NightPlan, trained: TrainedModel
) -> tuple[dict[str, np.ndarray], pl.DataFrame]:
    """Score the calibration days with the new weights: logits per task, and the rows they belong to."""
    tasks = step.config.tasks
    places = sorted(set(plan.calibrate.values()))
    parts = [day_logits(trained, days, i, step.config) for i in places]
    logits = {t.name: np.concatenate([p[0][t.name] for p in parts]) for t in tasks}
    frames = []
    for i, (_, encoded) in zip(places, parts, strict=True):
        known = {t.label: encoded.labels[t.name] if plan.calibrate[t.name] == i else np.nan for t in tasks}
        frames.append(
            pl.DataFrame({"weight": encoded.weight, "shown_at": encoded.shown_at}).with_columns(
                pl.Series(k, np.broadcast_to(v, encoded.size).astype(np.float32)) for k, v in known.items()
            )
        )
    return logits, pl.concat(frames)


_TRAIN = (
    "timezone", "attributes", "features", "model",
    "retrieval.weight", "retrieval.task", "retrieval.temperature", "retrieval.num_uniform",
    "training.batch_size", "training.epochs", "training.learning_rate", "training.warm_scale",
    "training.sparse_learning_rate", "training.weight_decay", "training.seed", "training.balancing",
    "training.balancer", "training.precision",
    *(f"tasks.{key}" for key in TaskSpec.model_fields if key != "fusion_weight"),
)  # fmt: skip
_WEIGHTS = ("training.seed", "training.sparse_learning_rate")
"""What building the model that weights are loaded into reads beside the bundle's own keys."""

STAGES: tuple[Stage, ...] = (
    Stage(name="ingest", keys=("timezone",), inputs=(), output=None, run=ingest),
    Stage(name="check_files", keys=("period",), inputs=(), output=None, run=check_files),
    Stage(
        name="features",
        keys=features.build.KEYS,
        inputs=(),
        output="days",
        run=build_features,
        passed=("execution", "tasks"),
    ),
    Stage(
        name="validate",
        keys=features.validation.ingest.KEYS,
        inputs=("days", "champion"),
        output="validation",
        run=validate,
    ),
    Stage(name="plan", keys=plans.KEYS, inputs=("days", "previous"), output="plan", run=plan),
    Stage(
        name="train",
        keys=_TRAIN,
        inputs=("days", "plan", "previous"),
        output="weights",
        run=train_weights,
    ),
    Stage(
        name="bundle",
        keys=(*CONFIG_KEYS, *_WEIGHTS, "fusion", "calibration"),
        inputs=("days", "plan", "previous", "weights"),
        output="evaluated",
        run=write_evaluated,
    ),
    Stage(
        name="evaluate",
        keys=("training.seed",),
        inputs=("days", "plan", "evaluated", "previous"),
        output="scores",
        run=evaluate_both,
    ),
    Stage(
        name="gate",
        keys=("gate", "calibration", "training.seed", "tasks.name", "tasks.head"),
        inputs=("scores", "evaluated", "previous"),
        output="decision",
        run=gate,
    ),
    Stage(
        name="refit",
        keys=(*_TRAIN, "training.refit"),
        inputs=("days", "plan", "evaluated", "decision"),
        output="refitted",
        run=refit,
    ),
    Stage(
        name="refit_bundle",
        keys=(*CONFIG_KEYS, *_WEIGHTS, "fusion"),
        inputs=("days", "evaluated", "decision", "refitted"),
        output="live",
        run=write_refitted,
    ),
    Stage(
        name="record",
        keys=("period", "tasks.name", "tasks.window"),
        inputs=("plan", "champion", "evaluated", "live", "decision", "validation", "began"),
        output=None,
        run=record,
    ),
    Stage(
        name="publish",
        keys=("store",),
        inputs=("days", "champion", "live", "dry_run"),
        output=None,
        run=publish,
    ),
)
"""In this order; each output is made once."""
