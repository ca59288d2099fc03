"""What the model of a step that diverged is built from, in files beside the step."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from recsys.config_view import values
from recsys.stages import write_json
from training.fit_inputs import FitInputs
from training.trainer.checkpoint import Checkpoint
from training.trainer.group import ALONE, Group
from training.trainer.guard import Guard

MODEL = "model.json"


def guard_of(inputs: FitInputs, folder: Path, start: Checkpoint | None, group: Group = ALONE) -> Guard:
    """Make the guard of a fit, or of a rank's part of it. Args: start: what the fit goes on from."""
    return Guard(folder, partial(_describe, inputs), start.log.losses if start else (), group)


def _describe(inputs: FitInputs, folder: Path) -> None:
    """Write what the model of a saved step is built from."""
    inputs.state.save(folder)
    said = {
        "config": values(inputs.config),
        "tasks": [t.name for t in inputs.tasks],
        "settings": asdict(inputs.settings),
        "alone": asdict(inputs.alone),
    }
    write_json(folder / MODEL, said)
