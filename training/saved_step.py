"""What the model of a step that diverged is built from, in files beside the step."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from recsys.config import RunConfig
from recsys.config_view import values
from recsys.encoding import EncoderState
from recsys.stages import write_json
from recsys.tasks import TaskSpec
from training.trainer.settings import FitSettings

MODEL = "model.json"


def describe(
    folder: Path,
    config: RunConfig,
    state: EncoderState,
    tasks: Sequence[TaskSpec],
    settings: FitSettings,
    alone: Sequence[str] = (),
) -> None:
    """Write what the model of a saved step is built from. Args: alone: as in `FitInputs`."""
    state.save(folder)
    said = {
        "config": values(config),
        "tasks": [t.name for t in tasks],
        "settings": asdict(settings),
        "alone": list(alone),
    }
    write_json(folder / MODEL, said)
