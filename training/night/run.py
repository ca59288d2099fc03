"""One night: ingest → features → train → write bundle → evaluate → gate → refit → publish → activate → gc.

Every stage writes to a content-addressed folder or under a version's name and is skipped when that is already
there: a night run again does nothing, a night killed anywhere goes on where it was.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.build import build_snapshots
from features.days import Days
from features.sources.journal import ingest_journal
from features.store import STORES, FeatureStore, open_store
from features.validation.ingest import ACCEPTED, Acceptances, Ingest, require_sound
from features.validation.report import Validation, write_report
from recsys.bundle import Bundle, load_bundle
from recsys.bundle import read_manifest as read_bundle_manifest
from recsys.config import RunConfig, period_start
from recsys.errors import ConfigError, DataError
from recsys.log import InteractionLog
from recsys.model.trunks import TRUNKS
from recsys.registry import Registry
from recsys.snapshot import DaySnapshot
from recsys.stages import Stages, read_manifest, write_json
from training.balancing import build_balancer
from training.calibrate import fit_calibration
from training.evaluation.eval_report import EvalReport
from training.evaluation.evaluate import evaluate, score_rows
from training.gate import Decision, Verdict, check_calibration, check_heads, check_lists, decide
from training.night.plan import NightPlan, lag, plan_night
from training.predict import BundlePredictor, day_logits
from training.progress import bar
from training.publish import champion_before, evaluated_version, publish, verify, write_night_bundle
from training.train import TrainedModel, train

CODE_VERSION = 5
"""Raise when a change alters what learning or evaluating gives for the same inputs."""
RANKING_USERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class NightResult:
    """How a night ended."""

    date: date
    verdict: Verdict
    version: str | None
    """The version that is live because of this night; None when it held."""
    evaluated: str
    decision: Decision
    seconds: float
    validation: Validation

    def to_json(self) -> dict[str, Any]:
        """Give the night as JSON values."""
        return {
            "date": str(self.date),
            "verdict": str(self.verdict),
            "version": self.version,
            "evaluated": self.evaluated,
            "reasons": self.decision.reasons,
            "findings": self.validation.counts,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """Where a night reads and writes."""

    config: RunConfig
    log: InteractionLog
    runs: Path
    date: date

    @property
    def registry(self) -> Registry:
        """Give the registry of the runs folder."""
        return Registry(self.runs)

    @property
    def stages(self) -> Stages:
        """Give the stages of the runs folder."""
        return Stages(self.runs / "stages")

    @property
    def ingest(self) -> Ingest:
        """Give what checks the log's data before anything is learnt from it."""
        accepted = Acceptances(self.runs / "registry" / ACCEPTED)
        return Ingest(log=self.log, config=self.config, stages=self.stages, accepted=accepted)


def run_night(night: Night, *, dry_run: bool = False) -> NightResult:
    """Run one night.

    Args: dry_run: stop before anything goes live.
    Raises: DataError, BundleError, StoreError or RegistryError; nothing is published then.
    """
    began = time.perf_counter()
    check_names(night.config)
    registry = night.registry
    with registry.locked("nightly", wait=False):
        # First of all: a bundle that this code cannot read is refused before features are built.
        champion = champion_before(registry, night.date)
        previous = load_bundle(registry.path(evaluated_version(registry, champion))) if champion else None
        ingest_journal(night.log, night.config.timezone)
        days = _snapshots(night)
        validation = _validate(night, days, champion)
        until = date.fromisoformat(registry.record(previous.version)["trained_until"]) if previous else None
        plan = plan_night(days.dates, night.config, until)
        evaluated = _train(night, days, plan, previous)
        decision = _evaluate(night, days, plan, evaluated, previous)
        live: str | None = None
        if decision.verdict is Verdict.PROMOTE:
            live = _refit(night, days, plan, evaluated) if night.config.training.refit else evaluated
        _record(night, days[plan.trained_until].day, evaluated, live, champion, decision, validation, began)
        if live is not None and not dry_run:
            _go_live(night, days[-1], live, champion)
    return NightResult(
        date=night.date,
        verdict=decision.verdict,
        version=live,
        evaluated=evaluated,
        decision=decision,
        seconds=time.perf_counter() - began,
        validation=validation,
    )


def check_names(config: RunConfig) -> None:
    """Refuse unknown names of trunk, balancer and store before hours of work.

    Raises: ConfigError listing the known names.
    """
    for where, name, known in (
        ("[model.trunk] name", config.model.trunk.name, TRUNKS),
        ("[store] url", config.store.url.split(":", 1)[0], STORES),
    ):
        if name not in known:
            raise ConfigError(f"{where} = {name!r} is unknown; known: {', '.join(sorted(known))}")
    build_balancer(config.training.balancing, {}, config.training.balancer)


def _snapshots(night: Night) -> Days:
    _require_impressions(night)
    broken = night.ingest.check_files(night.date)
    if broken is not None:
        require_sound(broken, str(write_report(broken, night.runs / "reports")))
    with bar("features") as on_period:
        return build_snapshots(night.log, night.date, night.config, night.stages, on_period)


def _validate(night: Night, days: Days, champion: str | None) -> Validation:
    """Check every day that no night has let through yet; write the report; stop at errors."""
    since = date.fromisoformat(night.registry.record(champion)["night"]) if champion else None
    with bar("validate") as on_day:
        validation = night.ingest.check_days(days, since, on_day)
    require_sound(validation, str(write_report(validation, night.runs / "reports")))
    return validation


def _require_impressions(night: Night) -> None:
    """Refuse a date that the log has nothing of before building anything: a wrong year must cost nothing."""
    days = night.log.require_days("impressions")
    start = period_start(night.date, night.config.period)
    if not any(start <= day <= night.date for day in days):
        raise DataError(
            f"{night.date} has 0 usable impressions in {night.log.root}, which has {days[0]} to {days[-1]}; "
            "choose one of its days, or write this day's log and run again"
        )


def _train(night: Night, days: Days, plan: NightPlan, previous: Bundle | None) -> str:
    """Train and write the evaluated bundle; give its version."""
    config = night.config
    inputs = {
        "code": CODE_VERSION,
        "days": days[-1].path.name,
        "config": config.model_dump(
            mode="json", include={"features", "model", "retrieval", "training", "calibration"}
        ),
        "tasks": [t.model_dump(mode="json") for t in config.tasks],
        "served": config.model_dump(mode="json", include={"fusion", "policy", "serving", "store"}),
        "plan": plan.train,
        "previous": previous.version if previous else None,
    }

    def build(folder: Path) -> dict[str, Any]:
        epochs = config.training.epochs if previous is None else 1
        with bar("train") as on_rows:
            trained = train(days, plan.train, config, previous, epochs, on_rows)
        logits, rows = _calibration_rows(night, days, plan, trained)
        calibration = fit_calibration(config.tasks, logits, rows, config.calibration)
        parent = previous.version if previous else None
        version = write_night_bundle(
            night.registry, trained, calibration, config, days[-1], parent, refitted=False
        )
        write_json(folder / "losses.json", trained.log.losses)
        return {"version": version, "rows": trained.log.rows, "losses": trained.log.mean_losses()}

    stage = night.stages.run("train", inputs, build)
    return _version_of(night, stage, inputs, build)


def _calibration_rows(
    night: Night, days: Days, plan: NightPlan, trained: TrainedModel
) -> tuple[dict[str, np.ndarray], pl.DataFrame]:
    """Score the calibration periods with the new weights: logits per task, and the rows they belong to."""
    tasks = night.config.tasks
    periods = sorted(set(plan.calibrate.values()))
    parts = [day_logits(trained, days, i, night.config) for i in periods]
    logits = {t.name: np.concatenate([p[0][t.name] for p in parts]) for t in tasks}
    frames = []
    for i, (_, encoded) in zip(periods, parts, strict=True):
        known = {t.label: encoded.labels[t.name] if plan.calibrate[t.name] == i else np.nan for t in tasks}
        frames.append(
            pl.DataFrame({"weight": encoded.weight, "shown_at": encoded.shown_at}).with_columns(
                pl.Series(k, np.broadcast_to(v, encoded.size).astype(np.float32)) for k, v in known.items()
            )
        )
    return logits, pl.concat(frames)


def _evaluate(night: Night, days: Days, plan: NightPlan, evaluated: str, previous: Bundle | None) -> Decision:
    """Evaluate challenger and champion on the same rows, both before their refit: equally fresh."""
    inputs = {
        "code": CODE_VERSION,
        "evaluated": evaluated,
        "champion": previous.version if previous else None,
        "days": days[-1].path.name,
        "gate": night.config.gate.model_dump(mode="json"),
    }

    def build(folder: Path) -> dict[str, Any]:
        challenger = load_bundle(night.registry.path(evaluated))
        mine, rows = _evaluated(night, days, plan, challenger)
        theirs, champion_rows = _evaluated(night, days, plan, previous) if previous else (None, None)
        checks = check_heads(
            night.config.tasks, rows, champion_rows, night.config.gate, night.config.training.seed
        )
        checks += check_calibration(
            night.config.tasks, challenger.manifest.calibration, night.config.calibration
        )
        checks += check_lists(mine.ranking, theirs.ranking if theirs else None, night.config.gate)
        decision = decide(previous.version if previous else None, evaluated, checks)
        write_json(folder / "challenger.json", mine.model_dump(mode="json"))
        if theirs:
            write_json(folder / "champion.json", theirs.model_dump(mode="json"))
        write_json(folder / "decision.json", decision.model_dump(mode="json"))
        return {"verdict": str(decision.verdict)}

    stage = night.stages.run("evaluate", inputs, build)
    return Decision.model_validate_json((stage / "decision.json").read_text())


def _evaluated(night: Night, days: Days, plan: NightPlan, bundle: Bundle) -> tuple[EvalReport, pl.DataFrame]:
    predictor = BundlePredictor(bundle)
    evaluated = {t: [i] for t, i in plan.evaluate.items()}
    with bar("evaluate") as on_progress:
        report = evaluate(
            predictor,
            days,
            evaluated,
            max_users=RANKING_USERS,
            seed=night.config.training.seed,
            baselines=False,
            on_progress=on_progress,
        )
    return report, score_rows(predictor, days, evaluated)


def _refit(night: Night, days: Days, plan: NightPlan, evaluated: str) -> str:
    """Continue one pass over the calibration and gate periods; calibration stays as it was evaluated."""
    inputs = {"code": CODE_VERSION, "evaluated": evaluated, "days": days[-1].path.name, "plan": plan.refit}

    def build(folder: Path) -> dict[str, Any]:
        before = load_bundle(night.registry.path(evaluated))
        with bar("refit") as on_rows:
            trained = train(days, plan.refit, night.config, before, 1, on_rows)
        calibration = dict(before.manifest.calibration)
        version = write_night_bundle(
            night.registry, trained, calibration, night.config, days[-1], evaluated, refitted=True
        )
        write_json(folder / "losses.json", trained.log.losses)
        return {"version": version, "rows": trained.log.rows, "losses": trained.log.mean_losses()}

    return _version_of(night, night.stages.run("refit", inputs, build), inputs, build)


def _version_of(
    night: Night, stage: Path, inputs: dict[str, Any], build: Callable[[Path], dict[str, Any]]
) -> str:
    """Read the version a stage made; make it again when somebody removed the bundle since."""
    version = str(read_manifest(stage)["version"])
    if version not in night.registry.versions():
        (stage / "manifest.json").unlink()
        night.stages.run(stage.parent.name, inputs, build)
    return version


def _record(
    night: Night,
    until: date,
    evaluated: str,
    live: str | None,
    champion: str | None,
    decision: Decision,
    validation: Validation,
    began: float,
) -> None:
    lags = {t.name: lag(t, night.config) for t in night.config.tasks}
    days = {
        "night": str(night.date),
        "verdict": str(decision.verdict),
        "champion": champion,
        "evaluated": evaluated,
    }
    for version in {evaluated, live or evaluated}:
        if night.registry.record(version):
            continue
        night.registry.write_record(
            version,
            {
                **days,
                "trained_until": str(until),
                "lags": lags,
                "checks": [c.model_dump(mode="json") for c in decision.checks],
                "findings": validation.counts,
                "accepted": validation.accepted,
                "seconds": round(time.perf_counter() - began, 2),
            },
        )


def _go_live(night: Night, snapshot: DaySnapshot, live: str, champion: str | None) -> None:
    """Publish users, check the written bundle as a server would load it, then flip the pointer.

    Run again it does nothing, unless the store has lost the users: then it gets them back.
    """
    registry = night.registry
    current = registry.current()
    if current not in (None, champion, live) and str(current)[:10] >= str(night.date):
        return
    with closing(open_store(night.config.store, night.runs)) as store:
        pointed = store.current()
        publish(store, registry, live, snapshot)
        if current == live:
            store.activate(live, expect=pointed)
            return
        verify(load_bundle(registry.path(live)), store)
        # The store first: where several hosts publish to one, the loser stops before its own pointer moves.
        store.activate(live, expect=pointed)
        registry.activate(live, expect=current)
        _collect(night, store, live)


def _collect(night: Night, store: FeatureStore, live: str) -> None:
    """Keep the newest versions and what servers have loaded; collect the rest of the store's bases."""
    registry = night.registry
    finals = [v for v in registry.versions() if registry.record(v).get("verdict") == "PROMOTE"]
    keep = {live, *finals[-2 * night.config.store.keep :], *registry.leased()}
    # Events older than the oldest base that may still be read are in every base already.
    store.gc(keep, min(read_bundle_manifest(registry.path(v)).snapshot_at_ms for v in keep))
