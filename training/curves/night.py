"""The curves of a night's learning stages: one run each, and what its bundle was measured at."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recsys.config_view import values
from recsys.manifest import read_manifest
from recsys.resolve import resolve
from recsys.stages import final_name
from training.curves import WRITERS, Outcome, RunPlace
from training.curves.recorder import Curves, Recorder
from training.evaluation.eval_report import EvalReport
from training.gate import Decision
from training.host_choice import HostChoice
from training.night.night import Night
from training.night.step import LOSSES, Step
from training.progress import say

HASH_LETTERS = 8


@contextmanager
def recorded(night: Night, stage: str, folder: Path, choice: HostChoice) -> Iterator[list[Recorder]]:
    """Record the fit of a stage that is built in `folder`; gives no recorder where no writer is asked for."""
    training = night.config.training
    if not training.writers:
        yield []
        return
    about = {"night": str(night.date), "stage": stage, "stage_hash": final_name(folder)}
    about |= _flat(asdict(choice), "choice.") | _flat(values(night.config), "")
    curves = Curves(
        writers=training.writers,
        place=_place(night, stage, folder, about),
        write_every=training.write_every,
        probe_every=training.probe_every,
    )
    with Recorder(curves, night.config.tasks, say) as recorder:
        yield [recorder]


def add_outcomes(
    step: Step,
    *,
    weights: Path,
    refitted: Path | None,
    scores: Path,
    evaluated: str,
    live: str | None,
    proved: Decision,
) -> None:
    """Add to the runs of `train` and `refit` their bundles, the verdict and the figures of the gate's day.

    A writer that fails is reported, and the night goes on.
    """
    figures = {"train": _figures(scores / "challenger.json", "validation")}
    figures["train"] |= _figures(scores / "champion.json", "champion")
    for stage, folder, version in (("train", weights, evaluated), ("refit", refitted, live)):
        if folder is None or version is None:
            continue
        parent = read_manifest(step.night.registry.path(version)).parent
        outcome = Outcome(
            step=max(0, len(json.loads((folder / LOSSES).read_text())) - 1),
            values=figures.get(stage, {}),
            tags={"bundle": version, "parent": parent or "none", "verdict": str(proved.verdict)},
        )
        for name in step.config.training.writers:
            try:
                resolve(WRITERS[name].finish)(_place(step.night, stage, folder, {}), outcome)
            except Exception as error:  # of a third party, a disk, a network
                say(f"{name}: {type(error).__name__}: {error}; it does not know the outcome of {version}")


def _place(night: Night, stage: str, folder: Path, about: Mapping[str, Any]) -> RunPlace:
    name = f"{night.date}/{stage}.{final_name(folder)[:HASH_LETTERS]}"
    return RunPlace(runs=night.runs, name=name, about=about)


def _figures(file: Path, whose: str) -> dict[str, float]:
    """Give what a bundle was measured at, by curve: `auc_validation/click`, `ndcg_at_10_validation/lists`."""
    if not file.is_file():
        return {}
    report = EvalReport.model_validate_json(file.read_text())
    parts = {task: head.values for task, head in report.heads.items()} | {"lists": report.ranking.values}
    return {
        f"{metric}_{whose}/{part}": value
        for part, figures in parts.items()
        for metric, value in figures.items()
        if value is not None
    }


def _flat(value: Any, path: str) -> dict[str, Any]:
    """Give nested JSON values by path; entries of a list of tables by their name, or their number."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = {str(entry.get("name", i)): entry for i, entry in enumerate(value)}.items()
    else:
        return {path.removesuffix("."): value}
    return {k: v for name, inner in items for k, v in _flat(inner, f"{path}{name}.").items()}
