"""`recsys bench trunks`: what a step costs with each trunk, all of one size, in one run.

The size is that of MMoE with the asked number of experts of the config's widths; the other trunks' widths are
scaled until they have as many parameters. Fits and trunks are timed in turns, so that a busy neighbour meets
all of them; ratios are medians of the turns' own ratios. A step is that of `fit` on one day of the simulated
shop; a trunk alone is forward and backward on random inputs. Both are in processor time.
"""

import json
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.training.product_parts import day_batches, fit_batches
from features.days import Days
from recsys.config import RunConfig, TrunkConfig
from recsys.model.budget import match_budget, num_parameters
from recsys.model.trunks import TRUNKS, build_trunk
from training.build_model import build_model
from training.train import fit_state

BASE = "shared_bottom"
PASSES = 5
"""Passes of a trunk alone in each turn; the fastest counts."""
Precision = Literal["fp32", "bf16"]


def measure_trunks(
    days: Days, config: RunConfig, experts: int, repeats: int, precision: Precision
) -> dict[str, Any]:
    """Time `fit` and the trunk alone, trunk after trunk, turn after turn."""
    ranker, _ = build_model(config, fit_state(days, [days.last], config, None), None)
    shapes = matched_shapes(config, ranker.num_trunk_in, experts)
    tasks = [t.name for t in config.tasks]
    batches, _, _ = day_batches(days, config)
    fits: dict[str, list[float]] = {name: [] for name in shapes}
    alone: dict[str, list[float]] = {name: [] for name in shapes}
    for _ in range(repeats):
        for name, shape in shapes.items():
            model = config.model.model_copy(update={"trunk": shape})
            chosen = config.model_copy(update={"model": model})
            fits[name].append(fit_batches(days, chosen, batches, precision).cpu_seconds / len(batches))
            alone[name].append(_trunk_seconds(shape, ranker.num_trunk_in, tasks, config, precision))
    return {
        "precision": precision,
        "batch_size": config.training.batch_size,
        "threads": config.training.threads,
        "load_average": os.getloadavg()[0],
        "inputs": ranker.num_trunk_in,
        "mmoe_to_shared_bottom": _ratio(fits["mmoe"], fits[BASE]),
        "trunks": {
            name: {
                "hidden": list(shape.hidden),
                "parameters": num_parameters(shape, ranker.num_trunk_in, tasks),
                "ms_per_step": 1e3 * statistics.median(fits[name]),
                "ratio_to_shared_bottom": _ratio(fits[name], fits[BASE]),
                "trunk_ms": 1e3 * statistics.median(alone[name]),
                "trunk_ratio_to_shared_bottom": _ratio(alone[name], alone[BASE]),
            }
            for name, shape in shapes.items()
        },
    }


def matched_shapes(config: RunConfig, num_in: int, experts: int) -> dict[str, TrunkConfig]:
    """Give every trunk's shape at the size of MMoE with so many experts of the config's widths."""
    tasks = [t.name for t in config.tasks]
    shape = config.model.trunk.model_copy(update={"num_experts": experts})
    wanted = num_parameters(shape.model_copy(update={"name": "mmoe"}), num_in, tasks)
    return {
        name: match_budget(shape.model_copy(update={"name": name}), num_in, tasks, wanted) for name in TRUNKS
    }


def _trunk_seconds(
    shape: TrunkConfig, num_in: int, tasks: Sequence[str], config: RunConfig, precision: Precision
) -> float:
    """Time one forward and backward of a fresh trunk, in seconds of the processor; the fastest of a few."""
    trunk = build_trunk(shape, num_in, tasks, config.model.dropout)
    x_BI = torch.randn(config.training.batch_size, num_in).requires_grad_()
    seconds = []
    for _ in range(PASSES):
        began = time.thread_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            found = trunk(x_BI)
        torch.stack([h.float().mean() for h in found.values()]).sum().backward()  # type: ignore[no-untyped-call]
        seconds.append(time.thread_time() - began)
    return min(seconds)


def _ratio(values: Sequence[float], base: Sequence[float]) -> float:
    return statistics.median(v / b for v, b in zip(values, base, strict=True))


def show_trunks(result: dict[str, Any]) -> None:
    """Print a line per trunk."""
    console = Console()
    table = Table(
        "trunk", "hidden", "parameters", "ms a step", "over shared_bottom", "alone, ms", "over", box=None
    )
    for name, row in result["trunks"].items():
        table.add_row(
            name,
            str(row["hidden"]),
            f"{row['parameters']:,}",
            f"{row['ms_per_step']:.1f}",
            f"{row['ratio_to_shared_bottom']:.2f}",
            f"{row['trunk_ms']:.1f}",
            f"{row['trunk_ratio_to_shared_bottom']:.2f}",
        )
    console.print(table)
    console.print(json.dumps({k: v for k, v in result.items() if k != "trunks"}), highlight=False)
