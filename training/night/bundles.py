"""The stages of a night that write a bundle: the one that is evaluated, and the one that goes live."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.days import Days
from recsys.bundle import Bundle, load_bundle
from recsys.calibration import Calibrator
from recsys.item_bias import no_item_bias
from recsys.item_terms import ItemNumbers
from recsys.records import Verdict
from training.calibrate import fit_calibration, level_calibration
from training.count_item_bias import count_item_bias
from training.gate import Decision
from training.night.plan import NightPlan
from training.night.step import Step
from training.predict import ListModel, day_logits
from training.progress import say
from training.publish import write_bundle
from training.source_fit import SourceFit, fit_sources
from training.train import TrainedModel
from training.weights import load_trained


def write_evaluated(
    step: Step, *, days: Days, plan: NightPlan, previous: Bundle | None, weights: Path
) -> str:
    """Calibrate the weights and write the bundle that is evaluated; give its version."""

    def build(folder: Path) -> dict[str, Any]:
        config, trained = step.config, load_trained(weights, step.config)
        logits, rows, items = _labelled_rows(step, days, plan.calibrate, trained, folder)
        calibration = fit_calibration(config.tasks, logits, rows, config.calibration, items)
        parent = previous.version if previous and not plan.cold else None
        fit, bias = _fit_sources(step, days, plan, trained, calibration, folder)
        say(fit.sentence())
        version = write_bundle(
            step.night.registry,
            trained,
            calibration,
            config,
            days[-1],
            parent,
            refitted=False,
            sources=fit.terms,
            item_bias=bias,
        )
        return {"version": version, "sources": fit.sentence()}

    return step.kept_bundle(build)


def write_refitted(
    step: Step, *, days: Days, plan: NightPlan, evaluated: str, decision: Decision, refitted: Path | None
) -> str | None:
    """Write the bundle that goes live; None when the night holds.

    It is calibrated as it was evaluated but for the level, which is that of the evaluated day: the pass over
    the calibration day has corrected what the calibrator corrects.
    """
    if decision.verdict is not Verdict.PROMOTE:
        return None
    if refitted is None:
        return evaluated

    def build(folder: Path) -> dict[str, Any]:
        trained = load_trained(refitted, step.config)
        known = load_bundle(step.night.registry.path(evaluated))
        seen = _labelled_rows(step, days, plan.evaluate, trained, folder)
        version = write_bundle(
            step.night.registry,
            trained,
            level_calibration(step.config.tasks, known.manifest.calibration, *seen),
            step.config,
            days[-1],
            evaluated,
            refitted=True,
            sources=known.manifest.fusion.sources,
            item_bias=known.item_bias,
        )
        return {"version": version}

    return step.kept_bundle(build)


def _fit_sources(
    step: Step,
    days: Days,
    plan: NightPlan,
    trained: TrainedModel,
    calibration: Mapping[str, Calibrator],
    folder: Path,
) -> tuple[SourceFit, pl.DataFrame]:
    """Count what the heads miss of items, and fit the sources' part of the score to the calibration day."""
    config = step.config
    if config.retrieval_task is None:
        return SourceFit(), no_item_bias()
    place = plan.calibrate[config.retrieval_task.name]
    bias = count_item_bias(trained, calibration, days, place, config, folder)
    model = ListModel.of(trained, calibration, config, days[place].table("items"), bias)
    return fit_sources(model, days, place, seed=config.training.seed), bias


def _labelled_rows(
    step: Step, days: Days, place_of: Mapping[str, int], trained: TrainedModel, folder: Path
) -> tuple[dict[str, np.ndarray], pl.DataFrame, ItemNumbers]:
    """Score days with new weights: logits per task, the rows and items they belong to.

    Args: place_of: task -> the day whose labels it is fitted to.
    """
    tasks = step.config.tasks
    places = sorted(set(place_of.values()))
    parts = [day_logits(trained, days, i, step.config, folder) for i in places]
    logits = {t.name: np.concatenate([p[0][t.name] for p in parts]) for t in tasks}
    frames = []
    for i, (_, encoded) in zip(places, parts, strict=True):
        known = {t.label: encoded.labels[t.name] if place_of[t.name] == i else np.nan for t in tasks}
        frames.append(
            pl.DataFrame({"weight": encoded.weight, "shown_at": encoded.shown_at}).with_columns(
                pl.Series(k, np.broadcast_to(v, encoded.size).astype(np.float32)) for k, v in known.items()
            )
        )
    return logits, pl.concat(frames), ItemNumbers.joined([rows.items for _, rows in parts])
