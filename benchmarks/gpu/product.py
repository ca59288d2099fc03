"""The product model's training on a device: speed beside its floor, waits, and agreement with the CPU."""

import time
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.device_time import around, bytes_of
from benchmarks.gpu.inputs import ProductInputs
from benchmarks.gpu.parts import SkippedError
from benchmarks.gpu.settings import Settings
from benchmarks.speed.training.matrix_work import matrix_flop
from recsys.batch import Batch
from recsys.device import CPU
from training.trainer.batch_file import batch_tensors
from training.trainer.fit import fit
from training.trainer.losses import all_losses
from training.trainer.moment import Moment, Progress
from training.trainer.train_log import TrainLog
from training.trainer.watcher import Watcher
from training.trainer.whole_batch import whole_batch

PRECISIONS = ("fp32", "bf16")
FIRST_STEPS, TRIAL_STEPS, MAX_STEPS = 5, 20, 2000
AGREEMENT_STEPS = 200
TOLERANCE = 0.01
"""Of the mean loss of the last 50 of 200 steps, relative: sums in another order part two runs slowly."""


def measure_product(settings: Settings) -> dict[str, Any]:
    """Time `fit` at each batch size and precision. Batches are cut beforehand, and moved ahead as always."""
    inputs, found = settings.inputs, {}
    for size, batches in inputs.batches.items():
        flop, moved = floor_of(inputs, batches[0])
        for precision in PRECISIONS:
            speed = _speed(settings, inputs, batches, precision)
            found[f"{size} {precision}"] = speed | with_floor(settings, speed, precision, flop, moved)
    return {"by_batch_size_and_precision": found, "line": "; ".join(line_of(k, v) for k, v in found.items())}


def _speed(
    settings: Settings, inputs: ProductInputs, batches: Sequence[Batch], precision: str
) -> dict[str, float]:
    ranker, tables = inputs.model(settings.device)

    def run(steps: int) -> TrainLog:
        how = inputs.settings(precision, settings.device, steps)
        return fit(ranker, tables, around(batches, steps), inputs.balancer(), inputs.heads, how)

    run(1 if settings.small else FIRST_STEPS)
    if settings.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trial = run(2 if settings.small else TRIAL_STEPS)
    steps = int(settings.seconds * trial.steps / trial.seconds)
    log = run(max(2, min(MAX_STEPS, steps)))
    peak = torch.cuda.max_memory_allocated() / 2**20 if settings.device.type == "cuda" else None
    return {
        "samples_per_second": log.rows / log.seconds,
        "step_ms": 1e3 * log.seconds / log.steps,
        "rows_per_step": log.rows / log.steps,
        "steps": log.steps,
        **({} if peak is None else {"peak_device_mb": peak}),
    }


def floor_of(inputs: ProductInputs, batch: Batch) -> tuple[float, float]:
    """Give a step's operations in matrix products, and the bytes that it must move at least.

    The bytes: the batch once; looked-up rows and their state, the dense parameters and their two moments,
    each read and written once. Activations could stay on the chip and are not counted.
    """
    ranker, tables = inputs.model(CPU)
    rows = tables.lookup(batch.rows)

    def learn() -> None:
        how, whole = inputs.settings("fp32", CPU, 1), whole_batch(batch, inputs.heads)
        losses, _ = all_losses(ranker, batch, inputs.heads, how, rows, whole)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]

    flop = matrix_flop(learn)
    dense = bytes_of(list(ranker.parameters()))
    state = 4 * sum(numbers.numel() for numbers in batch.rows.values())
    table = bytes_of(list(rows.values())) + state
    return flop, bytes_of(list(batch_tensors(batch).values())) + 2 * table + 6 * dense


def with_floor(
    settings: Settings, speed: dict[str, float], precision: str, flop: float, moved: float
) -> dict[str, float]:
    """Give the floor of a step, and its share of the time that the step took."""
    own, rates = {"flop_per_step": flop, "bytes_per_step": moved}, settings.earlier("rates")
    if not rates:
        return own
    matrix_ms = 1e3 * flop / rates["product_flop_per_second"][precision]
    memory_ms = 1e3 * moved / rates["memory_bytes_per_second"]
    share = (matrix_ms + memory_ms) / speed["step_ms"]
    return own | {"matrix_floor_ms": matrix_ms, "memory_floor_ms": memory_ms, "floor_share": share}


def line_of(name: str, found: dict[str, float]) -> str:
    """Say a speed in words."""
    share = f", {found['floor_share']:.1%} of the floor" if "floor_share" in found else ""
    return f"{name}: {found['samples_per_second']:,.0f} samples/s, {found['step_ms']:.2f} ms a step{share}"


class _Waits(Watcher):
    """Has torch say where a step makes the processor wait for the GPU."""

    def before_step(self, moment: Moment) -> None:
        torch.cuda.set_sync_debug_mode("warn")

    def after_step(self, progress: Progress) -> None:
        torch.cuda.set_sync_debug_mode("default")


def find_waits(settings: Settings) -> dict[str, Any]:
    """List the places in a step at which the processor waits for the GPU. There should be none."""
    if settings.device.type != "cuda":
        raise SkippedError(
            "only a GPU is waited for; tests/contracts/test_device.py counts on a pretended one"
        )
    inputs, device = settings.inputs, settings.device
    batches = next(iter(inputs.batches.values()))[:3]
    ranker, tables = inputs.model(device)
    # No loss is read before the last step is made.
    how = inputs.settings("fp32", device, len(batches))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(ranker, tables, batches, inputs.balancer(), inputs.heads, how, [_Waits()])
    places = sorted({f"{w.filename.split('/')[-1]}:{w.lineno}: {w.message}" for w in caught})
    waits = [place for place in places if "synchronizing CUDA operation" in place]
    return {"places": waits, "line": f"{len(waits)} places in a step make the processor wait"}


def compare_with_cpu(settings: Settings) -> dict[str, Any]:
    """Make the same 200 steps in float32 on the CPU and on the device, and in bf16 on the device."""
    steps = 5 if settings.small else AGREEMENT_STEPS
    inputs = settings.inputs
    batches = inputs.batches[min(inputs.batches)]
    began = time.perf_counter()
    on_cpu = _losses(inputs, batches, CPU, "fp32", steps)
    cpu_s = time.perf_counter() - began
    on_device = _losses(inputs, batches, settings.device, "fp32", steps)
    bf16 = _losses(inputs, batches, settings.device, "bf16", steps)
    difference = {name: _apart(on_device[name], on_cpu[name]) for name in on_cpu}
    last, last_bf16 = (
        {name: float(_apart(_end(found[name]), _end(on_cpu[name]))) for name in on_cpu}
        for found in (on_device, bf16)
    )
    marks = [0, *(2**k for k in range(1, steps.bit_length())), steps]
    return {
        "steps": steps,
        "cpu_seconds": cpu_s,
        "largest_relative_difference_by_steps": {
            f"{a}-{b}": {name: float(d[a:b].max()) for name, d in difference.items()}
            for a, b in pairwise(marks)
            if a < b
        },
        "relative_difference_of_last_mean": {"fp32": last, "bf16": last_bf16},
        "last_mean_on_cpu": {name: float(_end(values)) for name, values in on_cpu.items()},
        "tolerance": TOLERANCE,
        "agree": max(last.values()) < TOLERANCE,
        "line": f"{steps} steps: mean losses differ by at most {max(last.values()):.2e} in fp32 and "
        f"{max(last_bf16.values()):.2e} in bf16, relative",
    }


def _losses(
    inputs: ProductInputs, batches: Sequence[Batch], device: torch.device, precision: str, steps: int
) -> dict[str, np.ndarray]:
    """Give every step's losses, by name."""
    ranker, tables = inputs.model(device)
    how = inputs.settings(precision, device, steps)
    log = fit(ranker, tables, around(batches, steps), inputs.balancer(), inputs.heads, how)
    return {name: np.array([step[name] for step in log.losses]) for name in log.losses[0]}


def _end(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[-50:].mean())


def _apart(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Give relative differences; a loss of nothing observed is 0 on both sides."""
    return np.asarray(np.abs(found - wanted) / np.maximum(np.abs(wanted), 1e-9))
