"""The parts of the product model's training on one day: snapshots, encoding, cutting batches, and `fit`.

The floor is arithmetic: the operations of one real step's matrix products, all losses and all gradients, over
the rate that a large product of the same type reaches on this machine, measured in the same run.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.speed.shop_days import last_days, shop_log
from benchmarks.speed.training.floor import gemm_rate
from benchmarks.speed.training.matrix_work import matrix_flop
from features.days import Days
from features.encode import Encoder
from recsys.batch import Batch
from recsys.config import RunConfig
from recsys.device import CPU, has_fast_bf16
from recsys.errors import DataError
from training.build_model import build_model
from training.data import encode_day
from training.fit_inputs import balancer_of
from training.threads import use_threads
from training.train import fit_settings, fit_state, make_batcher, retrieval_popularity
from training.trainer.fit import fit
from training.trainer.train_log import TrainLog

T = TypeVar("T")


def measure_parts(config: RunConfig, log: Path | None, seed: int, repeats: int) -> dict[str, Any]:
    """Measure snapshots, encoding, batching and fitting of the log's last full day.

    Args: log: None: one of the simulated shop is written, from a seed.
    Raises: DataError when the log has fewer than three days.
    """
    use_threads(config.training.threads)
    with shop_log(seed, log) as (own, stages):
        days, snapshots_s = _timed(lambda: last_days(own, config, stages))
        if len(days) < 3:
            raise DataError(f"{own.root} has {len(days)} period(s); the bench needs 3")
        rows = sum(map(days.num_impressions, range(len(days))))
        batches, encode_s, make_s = day_batches(days, config)
        num_rows = sum(b.size for b in batches)
        precisions = ["fp32", "bf16"] if has_fast_bf16(CPU) else ["fp32"]
        return {
            "rows": num_rows,
            "steps": len(batches),
            "threads": config.training.threads,
            "load_average": os.getloadavg()[0],
            "snapshot_rows_per_second": rows / snapshots_s,
            "encode_rows_per_second": num_rows / encode_s,
            "batch_rows_per_second": num_rows / make_s,
            "fit": {name: _measure_fit(days, config, batches, name, repeats) for name in precisions},
        }


def _measure_fit(
    days: Days, config: RunConfig, batches: list[Batch], precision: str, repeats: int
) -> dict[str, float]:
    num_rows = sum(b.size for b in batches)
    seconds = [fit_batches(days, config, batches, precision).seconds for _ in range(repeats)]
    flop = matrix_flop(lambda: fit_batches(days, config, batches[:1], precision)) / batches[0].size
    rate = gemm_rate(torch.bfloat16 if precision == "bf16" else torch.float32)
    median = statistics.median(seconds)
    return {
        "rows_per_second": num_rows / median,
        "ms_per_step": 1e3 * median / len(batches),
        "flop_per_row": flop,
        "gemm_flop_per_second": rate,
        "floor_rows_per_second": rate / flop,
        "share_of_floor": (num_rows / median) / (rate / flop),
    }


def fit_batches(days: Days, config: RunConfig, batches: list[Batch], precision: str) -> TrainLog:
    """Fit a fresh model on batches; give what `fit` says of itself."""
    torch.manual_seed(config.training.seed)
    ranker, tables = build_model(config, fit_state(days, [days.last], config, None), None)
    training = config.training.model_copy(update={"precision": precision})
    settings = fit_settings(config.model_copy(update={"training": training}), len(batches), warm=False)
    return fit(ranker, tables, batches, balancer_of(config, config.tasks), config.tasks, settings)


def day_batches(days: Days, config: RunConfig) -> tuple[list[Batch], float, float]:
    """Encode and cut the last day; give its batches and the seconds of either."""
    state = fit_state(days, [days.last], config, None)
    encoder = Encoder.from_config(config, state)
    days.labels(days.last)  # made before the clock runs
    encoded, encode_s = _timed(lambda: encode_day(encoder, days, days.last, config.tasks))
    popularity = None
    if config.retrieval_task is not None and config.retrieval.weight:
        share = retrieval_popularity(days, [days.last], config, state)
        popularity = share[encoded.items.ids[:, 0]]
    cut = make_batcher(encoder, days[-1].table("items"), config, config.tasks)
    made, make_s = _timed(lambda: list(cut.batches(encoded, np.random.default_rng(0), popularity)))
    return made, encode_s, make_s


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    made = call()
    return made, time.perf_counter() - began
