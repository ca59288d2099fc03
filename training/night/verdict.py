"""The stages of the verdict: both bundles are measured on the same rows, and the gate compares them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from features.build import as_built_for
from features.days import Days
from recsys.bundle import Bundle, load_bundle
from recsys.device import resolve_device
from recsys.manifest import read_manifest
from recsys.records import Check, Verdict
from recsys.stages import Stages, write_json
from recsys.stages import read_manifest as read_stage
from recsys.tasks import new_heads
from training.baselines.beside import Figures, figures_beside, lines_beside
from training.evaluation.audience import Audience
from training.evaluation.eval_report import EvalReport
from training.evaluation.evaluate import evaluate, score_rows
from training.evaluation.examination import Told
from training.evaluation.list_metrics import source_line
from training.evaluation.lists import Lists
from training.gate import (
    Decision,
    GateRows,
    ServedFacts,
    check_calibration,
    check_lists,
    check_lists_alike,
    check_refit,
    check_served,
    compare_bundles,
    decide,
    of_evaluated_day,
)
from training.gate.decision import finding
from training.night.gate_rows import places_of
from training.night.plan import NightPlan, hull
from training.night.step import Step
from training.predict import BundlePredictor
from training.progress import bar, say
from training.served_facts import served_facts
from training.warm_start import SHOWN

RANKING_USERS = 500
CHALLENGER, CHAMPION, ANCHOR = "challenger", "champion", "anchor"
"""Names of the bundles in the files of a night's scores."""


def evaluate_both(
    step: Step, *, days: Days, plan: NightPlan, evaluated: str, previous: Bundle | None, anchor: str | None
) -> Path:
    """Score challenger, champion and anchor on the same rows, all before their refit: equally fresh."""
    registry = step.night.registry

    def build(folder: Path) -> dict[str, Any]:
        challenger = load_bundle(registry.path(evaluated))
        places = places_of(challenger.config.tasks, plan, challenger.manifest)
        bundles = {CHALLENGER: challenger, CHAMPION: previous}
        if anchor is not None:
            bundles[ANCHOR] = load_bundle(registry.path(anchor))
        there = {name: bundle for name, bundle in bundles.items() if bundle is not None}
        told = Told(require=lambda day: step.night.stages.require([day.path]))
        for name, bundle in there.items():
            _evaluate_one(step, folder, name, bundle, _days_of(bundle, step, days), places, plan, told)
        served = served_facts({name: bundle for name, bundle in there.items() if name != ANCHOR})
        # The manifest, not a file: times differ from run to run, and what is made of the files must not.
        return {"served": {name: facts.model_dump(mode="json") for name, facts in served.items()}}

    return step.kept(build)


def _days_of(bundle: Bundle, step: Step, days: Days) -> Days:
    """Give the night's days as the bundle's own config builds them.

    Read from tonight's, an input that tonight's config has dropped would be missing in every row, and the
    rival would lose by that alone.
    """
    night = step.night
    stages = Stages(night.stages.root, replace(night.reuse, ready=frozenset(), force=frozenset()))
    return as_built_for(days, bundle.config, night.log, stages, step.config.execution)


def _evaluate_one(
    step: Step,
    folder: Path,
    name: str,
    bundle: Bundle,
    days: Days,
    places: Mapping[str, Sequence[int]],
    plan: NightPlan,
    told: Told,
) -> None:
    """Score the rows of one bundle, and measure it on the evaluated day; the anchor's rows are enough."""
    predictor = BundlePredictor(bundle, resolve_device(step.config.training.device))
    tasks = bundle.config.tasks
    mine = {task.name: places[task.name] for task in tasks if task.name in places}
    if not mine:
        return  # a champion of other tasks altogether is no rival
    pages = _Pages()
    with bar("evaluate") as on_progress:
        rows = score_rows(predictor, days, mine, folder, told)
        rows.write_parquet(folder / f"{name}.parquet")
        if name == ANCHOR:
            return
        gated = {task: plan.gated[task] for task in mine}
        report = evaluate(
            predictor,
            days,
            {task: [plan.evaluate[task]] for task in mine},
            rows=of_evaluated_day(rows, gated),
            max_users=RANKING_USERS,
            beside=name == CHALLENGER,
            seed=step.config.training.seed,
            on_progress=on_progress,
            on_lists=pages.append_of,
        )
    pages.frame.write_parquet(folder / f"{name}-pages.parquet")
    if name == CHALLENGER:
        for line in (*lines_beside(report), source_line(report.ranking)):
            if line:
                say(line)
    write_json(folder / f"{name}.json", report.model_dump(mode="json"))


def gate(step: Step, *, plan: NightPlan, scores: Path, evaluated: str, previous: Bundle | None) -> Decision:
    """Decide between challenger, champion and anchor by what they were measured at."""
    config = step.config

    def build(folder: Path) -> dict[str, Any]:
        manifest = read_manifest(step.night.registry.path(evaluated))
        report = _report(scores, CHALLENGER)
        assert report is not None
        rival = _report(scores, CHAMPION)
        champion = _rows(scores, CHAMPION)
        found = compare_bundles(
            config.tasks,
            GateRows(
                challenger=pl.read_parquet(scores / f"{CHALLENGER}.parquet"),
                champion=champion,
                anchor=_rows(scores, ANCHOR),
                gated=plan.gated,
                new=new_heads(config.tasks, previous.config.tasks) if previous is not None else (),
            ),
            manifest.fusion,
            previous.manifest.fusion if previous is not None and champion is not None else None,
            config.gate,
            config.training.seed,
        )
        checks = [
            *found.checks,
            *check_calibration(config.tasks, manifest.calibration, config.calibration),
            *check_lists(report.ranking, rival.ranking if rival else None, config.gate),
            *check_lists_alike(*_pages(scores), config.gate),
            *_new_inputs(plan),
        ]
        decision = decide(
            previous.version if previous else None,
            evaluated,
            checks,
            list_value=found.list_value,
            power=found.power,
        )
        write_json(folder / "decision.json", decision.model_dump(mode="json"))
        served = check_served(*_served(scores), config.gate)
        whole = decision.with_checks(served)
        return {"verdict": str(whole.verdict), "served": [check.model_dump(mode="json") for check in served]}

    folder = step.kept(build)
    decision = Decision.model_validate_json((folder / "decision.json").read_text())
    return decision.with_checks([Check.model_validate(c) for c in read_stage(folder)["served"]])


def _new_inputs(plan: NightPlan) -> list[Check]:
    """Report inputs that the live bundle does not read, and what they were learned from."""
    new = plan.new_inputs
    if not new:
        return []
    names = ", ".join(new[:SHOWN]) + (f" and {len(new) - SHOWN} more" if len(new) > SHOWN else "")
    earlier, tonight = len(hull(plan.catch_up)), len(plan.train_periods)
    said = (
        f"{names}: learned from {earlier} period(s) that the heads know already, where nothing else moved, "
        f"then with the heads from {tonight} new one(s)"
    )
    return [finding("new inputs", Verdict.PROMOTE, said, inputs=len(new), periods=earlier)]


def check_refitted(
    step: Step,
    *,
    days: Days,
    plan: NightPlan,
    scores: Path,
    evaluated: str,
    decision: Decision,
    live: str | None,
) -> Decision:
    """Check the bundle that goes live on the day that the evaluated one was measured on."""
    if live is None or live == evaluated:
        return decision

    def build(folder: Path) -> dict[str, Any]:
        bundle = load_bundle(step.night.registry.path(live))
        predictor = BundlePredictor(bundle, resolve_device(step.config.training.device))
        places = {task: [place] for task, place in plan.evaluate.items()}
        scored = pl.read_parquet(scores / f"{CHALLENGER}.parquet")
        rows = score_rows(predictor, days, places, folder, Told.of(scored))
        before = of_evaluated_day(scored, plan.gated)
        tasks = bundle.config.tasks
        checks = check_refit(tasks, rows, before, step.config.gate, step.config.training.seed)
        return {"checks": [check.model_dump(mode="json") for check in checks]}

    found = read_stage(step.kept(build))["checks"]
    return decision.with_checks([Check.model_validate(check) for check in found])


def read_beside(scores: Path) -> Figures:
    """Read the new bundle's figures and those of simple systems beside it."""
    return figures_beside(EvalReport.model_validate_json((scores / "challenger.json").read_text()))


@dataclass(slots=True)
class _Pages:
    """Collects the first pages of a bundle's lists: user_id and the items' ids, best first."""

    frame: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"user_id": pl.String, "items": pl.List(pl.String)})
    )

    def append_of(self, audience: Audience, lists: Lists) -> None:
        """Add one period's pages."""
        ids = audience.catalogue["item_id"].to_numpy()
        pages = [ids[page[page >= 0]].tolist() for page in lists.ranked]
        found = pl.DataFrame(
            {"user_id": audience.requests["user_id"], "items": pl.Series(pages, dtype=pl.List(pl.String))}
        )
        self.frame = pl.concat([self.frame, found])


def _pages(folder: Path) -> tuple[list[list[str]], list[list[str]]]:
    """Give the challenger's and the champion's first pages of the users that both were asked for."""
    mine, theirs = (_rows(folder, f"{name}-pages") for name in (CHALLENGER, CHAMPION))
    if mine is None or theirs is None:
        return [], []
    both = mine.join(theirs.rename({"items": "live"}), on="user_id", maintain_order="left")
    return both["items"].to_list(), both["live"].to_list()


def _served(folder: Path) -> tuple[ServedFacts, ServedFacts | None]:
    facts = read_stage(folder)["served"]
    rival = facts.get(CHAMPION)
    return (
        ServedFacts.model_validate(facts[CHALLENGER]),
        None if rival is None else ServedFacts.model_validate(rival),
    )


def _report(folder: Path, name: str) -> EvalReport | None:
    file = folder / f"{name}.json"
    return EvalReport.model_validate_json(file.read_text()) if file.is_file() else None


def _rows(folder: Path, name: str) -> pl.DataFrame | None:
    file = folder / f"{name}.parquet"
    return pl.read_parquet(file) if file.is_file() else None
