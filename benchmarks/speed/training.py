"""`recsys bench train`: rows per second of the same `fit` that a night uses, beside its floor, in one run.

The floor is arithmetic: the operations of one step's matrix products over the rate that a large product of
the same type reaches on this machine, measured in the same run. Figures are medians over repeats; the load of
the machine is printed, because a busy neighbour moves them more than any change here.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from features.build import build_snapshots
from features.days import Days
from features.definitions import read_config
from features.encode import Encoder
from recsys.batch import Batch
from recsys.config import RunConfig
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import write_log
from recsys.simulator.shop import Shop
from recsys.stages import Stages, require_place, write_json
from recsys.tasks import RETRIEVAL
from training.balancing import build_balancer
from training.data import Batcher, BatchSettings, encode_day, text_by_number
from training.train import build_model, fit_state, retrieval_popularity
from training.trainer import FitSettings, TrainLog, fit, has_fast_bf16

GEMM_SIZE = 1024
T = TypeVar("T")


def bench_train_command(
    config: Annotated[Path | None, typer.Option(help="TOML file; default: the simulated shop's.")] = None,
    log: Annotated[Path | None, typer.Option(help="Interaction log; default: simulate 6 days.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Fits per precision; medians are reported.")] = 3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Measure training on one day of a log and print JSON."""
    require_place(json_file)
    settings = read_config(config)
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as scratch:
        folder = Path(scratch)
        root = log or simulated_log(folder / "log", seed)
        result = measure(InteractionLog(root), settings, Stages(folder / "stages"), repeats)
    print(json.dumps(result, indent=1))
    if json_file is not None:
        write_json(json_file, result)


def measure(log: InteractionLog, config: RunConfig, stages: Stages, repeats: int) -> dict[str, Any]:
    """Measure snapshots, encoding, batching and fitting of the log's last full day.

    Raises: DataError when the log has fewer than three days.
    """
    torch.set_num_threads(config.training.threads)
    began = time.perf_counter()
    days = build_snapshots(log, log.require_days("impressions")[-1], config, stages)
    snapshots_s = time.perf_counter() - began
    if len(days) < 3:
        raise DataError(f"{log.root} has {len(days)} period(s); the bench needs 3")
    rows = sum(map(days.num_impressions, range(len(days))))
    batches, encode_s, make_s = day_batches(days, config)
    num_rows = sum(b.size for b in batches)
    precisions = ["fp32", "bf16"] if has_fast_bf16() else ["fp32"]
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
    seconds = [fit_seconds(days, config, batches, precision) for _ in range(repeats)]
    flop = _flop_per_row(days, config, batches[0])
    rate = _gemm_rate(torch.bfloat16 if precision == "bf16" else torch.float32)
    median = statistics.median(seconds)
    return {
        "rows_per_second": num_rows / median,
        "ms_per_step": 1e3 * median / len(batches),
        "flop_per_row": flop,
        "gemm_flop_per_second": rate,
        "floor_rows_per_second": rate / flop,
        "share_of_floor": (num_rows / median) / (rate / flop),
    }


def fit_seconds(days: Days, config: RunConfig, batches: list[Batch], precision: str) -> float:
    """Fit a fresh model on batches; give the seconds of `fit` alone."""
    return fit_batches(days, config, batches, precision).seconds


def fit_batches(days: Days, config: RunConfig, batches: list[Batch], precision: str) -> TrainLog:
    """Fit a fresh model on batches; give what `fit` says of itself."""
    torch.manual_seed(config.training.seed)
    ranker, tables = build_model(config, fit_state(days, [days.last], config, None), None)
    retrieval = config.retrieval_task if config.retrieval.weight else None
    settings = FitSettings(
        learning_rate=config.training.learning_rate,
        weight_decay=config.training.weight_decay,
        retrieval_task=retrieval.name if retrieval else None,
        temperature=config.retrieval.temperature,
        total_steps=len(batches),
        bf16=precision == "bf16",
    )
    weights = {t.name: t.weight for t in config.tasks} | {RETRIEVAL: config.retrieval.weight}
    balancer = build_balancer(config.training.balancing, weights, config.training.balancer)
    return fit(ranker, tables, batches, balancer, config.tasks, settings)


def day_batches(days: Days, config: RunConfig) -> tuple[list[Batch], float, float]:
    """Encode and cut the last day; give its batches and the seconds of either."""
    state = fit_state(days, [days.last], config, None)
    encoder = Encoder.from_config(config, state)
    days.labels(days.last)  # made before the clock runs
    encoded, encode_s = _timed(lambda: encode_day(encoder, days, days.last, config.tasks))
    settings = BatchSettings(
        batch_size=config.training.batch_size,
        history_length=config.features.history_length,
        lag_ms=1000 * config.features.ingestion_lag,
        shuffle=True,
        id_dropout=config.model.id_dropout,
        num_uniform=config.retrieval.num_uniform,
        tasks=tuple(t.name for t in config.tasks),
    )
    batcher = Batcher(encoder, text_by_number(encoder, days[-1].table("items")), settings)
    popularity = None
    if config.retrieval_task is not None and config.retrieval.weight:
        share = retrieval_popularity(days, [days.last], config, state)
        popularity = share[encoded.items.ids[:, 0]]
    made, make_s = _timed(lambda: list(batcher.batches(encoded, np.random.default_rng(0), popularity)))
    return made, encode_s, make_s


def _flop_per_row(days: Days, config: RunConfig, batch: Batch) -> float:
    """Count the matrix products' operations of one forward and backward, per example."""
    ranker, tables = build_model(config, fit_state(days, [days.last], config, None), None)
    with FlopCounterMode(display=False) as counter:
        logits, user, item = ranker(batch, tables.lookup(batch.rows))
        loss = (
            torch.stack([v.sum() for v in logits.values()]).sum()
            + (user.embedding_BD * item.embedding_BD).sum()
        )
        loss.backward()
    return float(counter.get_total_flops()) / batch.size


def _gemm_rate(dtype: torch.dtype) -> float:
    """Measure what a large square product of a type reaches here, in operations a second."""
    a = torch.randn(GEMM_SIZE, GEMM_SIZE).to(dtype)
    seconds = [_timed(lambda: a @ a)[1] for _ in range(12)]
    return 2.0 * GEMM_SIZE**3 / statistics.median(seconds[2:])


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    made = call()
    return made, time.perf_counter() - began


def simulated_log(root: Path, seed: int) -> Path:
    """Write six days of the default shop."""
    for _ in write_log(Shop.from_seed(ShopDials(days=6), seed), InteractionLog(root)):
        pass
    return root
