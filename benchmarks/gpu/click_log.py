"""The bench model (an MMoE on the click log of `recsys bench train`) on a device."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.gpu.device_time import around
from benchmarks.gpu.product import FIRST_STEPS, MAX_STEPS, PRECISIONS, TRIAL_STEPS, line_of, with_floor
from benchmarks.gpu.settings import Settings
from benchmarks.speed.training.click_log import TASKS, write_click_log
from benchmarks.speed.training.click_log_model import SPECS, TABLE, ClickLogBatches, ClickLogModel
from benchmarks.speed.training.floor import BYTES_PER_ROW, click_log_flop
from recsys.batch import Batch
from recsys.model.embeddings import LocalTables
from training.balancing.weights import Fixed
from training.trainer.fit import fit
from training.trainer.settings import FitSettings, read_every
from training.trainer.train_log import TrainLog

BATCH_SIZES = (2048, 8192, 65_536)
ROWS, SMALL_ROWS = 1 << 19, 1 << 12
LEARNING_RATE, SPARSE_LEARNING_RATE = 0.001, 0.05
"""They change no speed."""


def measure_click_log(settings: Settings) -> dict[str, Any]:
    """Time `fit` by batch size and precision, on batches cut beforehand; and one epoch, cutting included."""
    found = {}
    with TemporaryDirectory(prefix="recsys-gpu-") as folder:
        rows = SMALL_ROWS if settings.small else ROWS
        write_click_log(Path(folder), rows, 1, seed=0)
        for size in (s for s in BATCH_SIZES if s <= rows):
            cut = ClickLogBatches(folder=Path(folder), part="train", rows=rows, batch_size=size, seed=0)
            batches = list(cut)
            for precision in PRECISIONS:
                fitter = _Fitter(settings, precision)
                fitter.run(batches, 1 if settings.small else FIRST_STEPS)
                trial = fitter.run(batches, 2 if settings.small else TRIAL_STEPS)
                steps = int(settings.seconds / 2 * trial.steps / trial.seconds)
                log = fitter.run(batches, max(2, min(MAX_STEPS, steps)))
                speed = {
                    "samples_per_second": log.rows / log.seconds,
                    "step_ms": 1e3 * log.seconds / log.steps,
                    "steps": float(log.steps),
                }
                num = log.rows / log.steps
                floor = with_floor(settings, speed, precision, click_log_flop() * num, BYTES_PER_ROW * num)
                found[f"{size} {precision}"] = speed | floor
            epoch = _Fitter(settings, "fp32").run(cut, cut.steps)
            found[f"{size} fp32"]["samples_per_second_with_cutting"] = epoch.rows / epoch.seconds
    return {"by_batch_size_and_precision": found, "line": "; ".join(line_of(k, v) for k, v in found.items())}


class _Fitter:
    """A model that goes on learning from call to call."""

    def __init__(self, settings: Settings, precision: str) -> None:
        torch.manual_seed(0)
        self.device, self.precision = settings.device, precision
        self.model = ClickLogModel().to(settings.device)
        self.tables = LocalTables((TABLE,), SPARSE_LEARNING_RATE, 0).to(settings.device)

    def run(self, batches: ClickLogBatches | list[Batch], steps: int) -> TrainLog:
        """Make so many steps."""
        how = FitSettings(
            learning_rate=LEARNING_RATE,
            weight_decay=1e-5,
            retrieval_task=None,
            temperature=1.0,
            total_steps=steps,
            bf16=self.precision == "bf16",
            read_every=read_every(self.device),
        )
        given = around(batches, steps) if isinstance(batches, list) else batches
        return fit(self.model, self.tables, given, Fixed(dict.fromkeys(TASKS, 1.0)), SPECS, how)
