"""The stages of the verdict: both bundles are measured on the same rows, and the gate compares them."""

from pathlib import Path
from typing import Any

import polars as pl

from features.days import Days
from recsys.bundle import Bundle, load_bundle
from recsys.device import resolve_device
from recsys.manifest import read_manifest
from recsys.stages import write_json
from recsys.tasks import new_heads
from training.baselines.beside import Figures, figures_beside, lines_beside
from training.evaluation.eval_report import EvalReport
from training.evaluation.evaluate import evaluate, score_rows
from training.evaluation.list_metrics import source_line
from training.gate import Decision, check_calibration, check_heads, check_lists, decide
from training.night.plan import NightPlan
from training.night.step import Step
from training.predict import BundlePredictor
from training.progress import bar, say
from training.served_order import check_served_order

RANKING_USERS = 500


def evaluate_both(
    step: Step, *, days: Days, plan: NightPlan, evaluated: str, previous: Bundle | None
) -> Path:
    """Score and measure challenger and champion on the same rows, both before their refit: equally fresh."""

    def build(folder: Path) -> dict[str, Any]:
        bundles = {"challenger": load_bundle(step.night.registry.path(evaluated)), "champion": previous}
        for name, bundle in bundles.items():
            if bundle is None:
                continue
            predictor = BundlePredictor(bundle, resolve_device(step.config.training.device))
            known = {task.name for task in bundle.config.tasks}
            places = {task: [i] for task, i in plan.evaluate.items() if task in known}
            if not places:
                continue  # a champion of other tasks altogether is no rival
            with bar("evaluate") as on_progress:
                rows = score_rows(predictor, days, places, folder)
                report = evaluate(
                    predictor,
                    days,
                    places,
                    rows=rows,
                    max_users=RANKING_USERS,
                    beside=name == "challenger",
                    seed=step.config.training.seed,
                    on_progress=on_progress,
                )
            if name == "challenger":
                for line in (*lines_beside(report), source_line(report.ranking)):
                    if line:
                        say(line)
            rows.write_parquet(folder / f"{name}.parquet")
            write_json(folder / f"{name}.json", report.model_dump(mode="json"))
        return {}

    return step.kept(build)


def gate(step: Step, *, scores: Path, evaluated: str, previous: Bundle | None) -> Decision:
    """Decide between challenger and champion by what both were measured at."""
    config = step.config

    def build(folder: Path) -> dict[str, Any]:
        mine, rows = _scores(scores, "challenger")
        rival = (scores / "champion.json").is_file()
        theirs, champion_rows = _scores(scores, "champion") if rival else (None, None)
        served_by_champion = champion_rows
        if previous is not None and champion_rows is not None:
            # What the champion says of a task that has changed its meaning is no prediction of it.
            new = new_heads(config.tasks, previous.config.tasks)
            champion_rows = champion_rows.drop([f"prediction_{task}" for task in new], strict=False)
        checks = check_heads(config.tasks, rows, champion_rows, config.gate, config.training.seed)
        calibration = read_manifest(step.night.registry.path(evaluated)).calibration
        checks += check_served_order(
            config.tasks, rows, served_by_champion, config.gate, config.training.seed
        )
        checks += check_calibration(config.tasks, calibration, config.calibration)
        checks += check_lists(mine.ranking, theirs.ranking if theirs else None, config.gate)
        decision = decide(previous.version if previous else None, evaluated, checks)
        write_json(folder / "decision.json", decision.model_dump(mode="json"))
        return {"verdict": str(decision.verdict)}

    return Decision.model_validate_json((step.kept(build) / "decision.json").read_text())


def read_beside(scores: Path) -> Figures:
    """Read the new bundle's figures and those of simple systems beside it."""
    return figures_beside(EvalReport.model_validate_json((scores / "challenger.json").read_text()))


def _scores(folder: Path, name: str) -> tuple[EvalReport, pl.DataFrame]:
    report = EvalReport.model_validate_json((folder / f"{name}.json").read_text())
    return report, pl.read_parquet(folder / f"{name}.parquet")
