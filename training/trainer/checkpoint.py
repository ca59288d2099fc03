"""All that a fit goes on from, by name: a folder that is whole or not there.

CHECKPOINT/{manifest.json, state.safetensors}. The manifest has the state's SHA-256 and is written last; the
folder gets its name when both are on the disk. Names and shapes know nothing of processes and shards, so a
checkpoint of two processes is one of four.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from recsys.errors import DataError
from training.trainer.train_log import TrainLog

STATE = "state.safetensors"
FORMAT = 1
"""Raise when the names or the manifest change."""
_LOSSES = "log.losses"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """All that a fit goes on from."""

    tensors: Mapping[str, Tensor]
    """`model.<name>`, `dense.<parameter>.<moment>`, `table.<name>.weight`, `table.<name>.state`, `random`."""
    balancer: Mapping[str, Any]
    log: TrainLog

    def part(self, name: str) -> dict[str, Tensor]:
        """Give the tensors under `name.`, without it."""
        prefix = f"{name}."
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint under a temporary name, to the disk, then give it its own."""
    from safetensors.numpy import save_file

    from recsys.stages import MANIFEST, write_json

    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    log = checkpoint.log
    names = sorted({name for step in log.losses for name in step})
    losses = np.array([[step.get(name, np.nan) for name in names] for step in log.losses])
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in checkpoint.tensors.items()}
    save_file(arrays | {_LOSSES: losses.reshape(len(log.losses), len(names))}, temporary / STATE)
    _flush(temporary / STATE)
    said = {"steps": log.steps, "rows": log.rows, "seconds": log.seconds, "cpu_seconds": log.cpu_seconds}
    manifest = {
        "format": FORMAT,
        "sha256": _digest(temporary / STATE),
        "balancer": dict(checkpoint.balancer),
        "losses": names,
        "log": said,
    }
    write_json(temporary / MANIFEST, manifest)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; its tensors are pages of the file until they are used.

    Raises: DataError when it is torn, damaged or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from recsys.stages import MANIFEST

    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise DataError(f"{folder} has format {manifest['format']}, this code reads {FORMAT}")
        if _digest(folder / STATE) != manifest["sha256"]:
            raise DataError(f"{folder / STATE} is damaged: its SHA-256 is not that of {MANIFEST}")
        tensors = load_file(folder / STATE)
        names, values = manifest["losses"], tensors.pop(_LOSSES).tolist()
        losses = [{n: v for n, v in zip(names, step, strict=True) if not math.isnan(v)} for step in values]
        return Checkpoint(
            tensors=tensors,
            balancer=manifest["balancer"],
            log=TrainLog(losses=losses, **manifest["log"]),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{folder} is no whole checkpoint: {error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
