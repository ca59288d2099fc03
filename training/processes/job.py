"""A fit in a folder: what the parent writes and the ranks read, and what rank 0 writes back."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors.numpy import load_file, save_file

from recsys.config import parse_config
from recsys.config_view import values
from recsys.encoding import EncoderState
from recsys.stages import write_json
from recsys.user_key import name_alone
from recsys.vocabulary import Vocabulary
from training.curves.recorder import Curves
from training.data import EncodedDays
from training.data.chunks import DaySize
from training.data.encoded_files import EncodedFiles
from training.fit_inputs import FitInputs
from training.new_parts import NewParts
from training.trainer.saver import Saver
from training.trainer.settings import FitSettings
from training.trainer.train_log import TrainLog

INPUTS, ARRAYS, WEIGHTS = "inputs.json", "arrays.safetensors", "weights.safetensors"
TRAINED, LOG, STEPS = "trained.safetensors", "log.json", "steps.jsonl"


@dataclass(frozen=True, slots=True)
class FitJob:
    """One fit of several processes."""

    folder: Path

    def write(
        self,
        inputs: FitInputs,
        weights: dict[str, np.ndarray],
        saver: Saver | None,
        diverged: Path | None = None,
        curves: Curves | None = None,
        *,
        sharded: bool = False,
    ) -> None:
        """Write all but the encoded days, which are named, and made if they are not there.

        Args: saver: where rank 0 saves checkpoints, and how often; diverged: where ranks save a step whose
        loss is not finite or explodes; curves: what they record, and rank 0 writes, for people; sharded: the
        ranks share the tables.
        """
        assert isinstance(inputs.read_day, EncodedDays), "several processes read files"
        inputs.state.save(self.folder)
        arrays = {"text": inputs.text.numpy()}
        if inputs.popularity is not None:
            arrays["popularity"] = inputs.popularity
        save_file(arrays, self.folder / ARRAYS)
        save_file(weights, self.folder / WEIGHTS)
        said = {
            "config": values(inputs.config),
            "tasks": [t.name for t in inputs.tasks],
            "days": [[i, str(size.day), size.num_rows] for i, size in inputs.days.items()],
            "encoded": {i: str(inputs.read_day(i).folder) for i in inputs.days},
            "epochs": inputs.epochs,
            "settings": asdict(inputs.settings),
            "limit": inputs.limit,
            "sharded": sharded,
            "alone": asdict(inputs.alone),
            "examination": inputs.examination,
            "saver": [str(saver.folder), saver.minutes] if saver else None,
            "diverged": str(diverged) if diverged else None,
            "curves": curves.to_json() if curves else None,
        }
        write_json(self.folder / INPUTS, said)

    def inputs(self) -> FitInputs:
        """Read what `write` wrote."""
        said = self._said()
        config = parse_config(said["config"], str(self.folder / INPUTS))
        arrays = load_file(self.folder / ARRAYS)
        tasks = {t.name: t for t in config.tasks}
        return FitInputs(
            config=config,
            tasks=[tasks[name] for name in said["tasks"]],
            state=EncoderState.load(self.folder, partial(Vocabulary.load, find_key=name_alone)),
            text=torch.from_numpy(arrays["text"]),
            popularity=arrays.get("popularity"),
            days={i: DaySize(date.fromisoformat(day), rows) for i, day, rows in said["days"]},
            epochs=said["epochs"],
            read_day=lambda i: EncodedFiles(Path(said["encoded"][str(i)])),
            settings=FitSettings(**said["settings"]),
            limit=said["limit"],
            alone=NewParts.of_json(said["alone"]),
            examination=tuple(said["examination"]),
        )

    def saver(self, say: Callable[[str], None]) -> Saver | None:
        """Give what keeps the checkpoints."""
        said = self._said()["saver"]
        return Saver(Path(said[0]), said[1], say) if said else None

    def diverged(self) -> Path | None:
        """Give the folder for a step that diverges."""
        said = self._said()["diverged"]
        return Path(said) if said else None

    @property
    def sharded(self) -> bool:
        """Tell whether the ranks share the tables, or have copies."""
        found: bool = self._said()["sharded"]
        return found

    def curves(self) -> Curves | None:
        """Give what is recorded for people."""
        said = self._said()["curves"]
        return Curves.from_json(said) if said else None

    def start(self) -> dict[str, np.ndarray]:
        """Give the weights to begin with, as pages of their file: a rank may want a share of them."""
        return _mapped(self.folder / WEIGHTS)

    def finish(self, weights: dict[str, np.ndarray], log: TrainLog) -> None:
        """Write the trained weights and the log; of rank 0."""
        save_file(weights, self.folder / TRAINED)
        write_json(self.folder / LOG, asdict(log))

    def trained(self) -> tuple[dict[str, np.ndarray], TrainLog]:
        """Read what `finish` wrote."""
        return _mapped(self.folder / TRAINED), TrainLog(**json.loads((self.folder / LOG).read_text()))

    def _said(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads((self.folder / INPUTS).read_text())
        return said


def _mapped(file: Path) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in safetensors.torch.load_file(file).items()}
