"""`recsys bench balancing`: what each method makes of a planted conflict, and what a step costs.

The problem has two regressions from one narrow shared layer. Each target depends on two directions of the
input, the layer has room for three, and the second pair of directions half opposes the first: what helps one
task hurts the other. The second loss is counted in a unit a hundred times the first's, as when one label is
in stars and another in tenths of one. Held-out losses are shares of a target's variance: 1 is as good as its
mean. Every method sees the same draws; figures are means over seeds with their standard deviation.

The cost is that of `fit` on one day of the shop with the default ranker, methods taking turns, over fixed
weights: processor time, which a busy neighbour moves less than the clock on the wall.
"""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.speed.shop_days import built_days
from benchmarks.speed.training.product_parts import day_batches, fit_batches
from features.days import Days
from recsys.config import BalancerConfig, RunConfig
from recsys.errors import ConfigError
from training.balancing import BALANCERS, build_balancer

INPUTS, WIDTH, STEPS, BATCH, TEST = 16, 3, 500, 256, 4096
UNIT = 100.0
TUNED = "fixed, units known"
"""Fixed weights that undo the unit: what tuning by hand would find, and what no method is told."""


def measure_balancing(config: RunConfig, seeds: int, repeats: int) -> dict[str, Any]:
    """Compare the methods on the planted conflict, and their cost per step."""
    names, missing = installed()
    with built_days(config) as days:
        return {
            "problem": planted_conflict(names, seeds),
            "cost": cost_per_step(config, days, names, repeats),
            "not_installed": missing,
            "threads": config.training.threads,
            "load_average": os.getloadavg()[0],
        }


def installed() -> tuple[list[str], dict[str, str]]:
    """Give the methods that can run here, and for the others what they lack."""
    names, missing = [], {}
    for name in BALANCERS:
        try:
            build_balancer(name, {})
            names.append(name)
        except ConfigError as error:
            missing[name] = str(error)
    return names, missing


def planted_conflict(names: Sequence[str], seeds: int) -> dict[str, dict[str, float]]:
    """Train every method on the same draws; give means and standard deviations of the held-out losses."""
    found: dict[str, dict[str, float]] = {}
    for name in (names[0], TUNED, *names[1:]):
        losses = np.array([_train(name, seed) for seed in range(seeds)])
        parts = {"first": losses[:, 0], "second": losses[:, 1], "sum": losses.sum(axis=1)}
        found[name] = {k: float(v.mean()) for k, v in parts.items()}
        found[name] |= {f"{k}_sd": float(v.std(ddof=1)) for k, v in parts.items()}
    return found


def cost_per_step(
    config: RunConfig, days: Days, names: Sequence[str], repeats: int
) -> dict[str, dict[str, float]]:
    """Time `fit` with every method on one day of the shop, in turns; ratios are medians over the repeats."""
    batches, _, _ = day_batches(days, config)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            changed = {"balancing": name, "balancer": BalancerConfig()}
            training = config.training.model_copy(update=changed)
            chosen = config.model_copy(update={"training": training})
            seconds[name].append(fit_batches(days, chosen, batches, "fp32").cpu_seconds)
    return {
        name: {
            "cpu_ms_per_step": 1e3 * statistics.median(times) / len(batches),
            "ratio_to_fixed": statistics.median(t / f for t, f in zip(times, seconds["fixed"], strict=True)),
        }
        for name, times in seconds.items()
    }


def _train(name: str, seed: int) -> list[float]:
    """Train on one draw of the problem; give both held-out losses as shares of their targets' variance."""
    generator = torch.Generator().manual_seed(seed)
    problem = _Problem(generator)
    weights = {"second": 1 / UNIT} if name == TUNED else {}
    balancer = build_balancer("fixed" if name == TUNED else name, weights)
    optimiser = torch.optim.Adam(problem.parameters, lr=0.01)
    for _ in range(STEPS):
        optimiser.zero_grad()
        x_BI = torch.randn(BATCH, INPUTS, generator=generator).requires_grad_()
        balancer.backward(problem.losses(x_BI), problem.parameters, [x_BI])
        optimiser.step()
    x_BI = torch.randn(TEST, INPUTS, generator=generator)
    with torch.no_grad():
        losses, targets = problem.losses(x_BI), problem.targets(x_BI)
    unit = {"first": 1.0, "second": UNIT}
    return [float(losses[n] / unit[n] / targets[n].var()) for n in ("first", "second")]


class _Problem:
    """Two targets of two directions each, a shared layer of three units, one head a task."""

    def __init__(self, generator: torch.Generator) -> None:
        """Draw the directions and the start."""
        first_I2 = torch.randn(INPUTS, 2, generator=generator) / INPUTS**0.5
        own_I2 = torch.randn(INPUTS, 2, generator=generator) / INPUTS**0.5
        self.directions = {"first": first_I2, "second": 0.75**0.5 * own_I2 - 0.5 * first_I2}
        start = torch.randn(INPUTS, WIDTH, generator=generator) / INPUTS**0.5
        self.shared_IH = start.requires_grad_()
        self.heads = {n: torch.zeros(WIDTH).add_(0.3).requires_grad_() for n in self.directions}
        self.parameters = [self.shared_IH, *self.heads.values()]

    def targets(self, x_BI: Tensor) -> Mapping[str, Tensor]:
        """Give both targets [B]."""
        return {n: (2 * x_BI @ d_I2).tanh().sum(dim=1) for n, d_I2 in self.directions.items()}

    def losses(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Give both squared errors, the second in its larger unit."""
        hidden_BH = (x_BI @ self.shared_IH).tanh()
        errors = {n: hidden_BH @ self.heads[n] - y_B for n, y_B in self.targets(x_BI.detach()).items()}
        return {"first": errors["first"].square().mean(), "second": UNIT * errors["second"].square().mean()}


def show_balancing(results: Mapping[str, Any]) -> None:
    """Print a line per method."""
    console = Console()
    table = Table("method", "first loss", "second loss", "sum", "cpu ms a step", "over fixed", box=None)
    for name, row in results["problem"].items():
        cost = results["cost"].get(name)
        table.add_row(
            name,
            *(f"{row[k]:.3f} ±{row[f'{k}_sd']:.2f}" for k in ("first", "second", "sum")),
            *((f"{cost['cpu_ms_per_step']:.1f}", f"{cost['ratio_to_fixed']:.2f}") if cost else ("", "")),
        )
    console.print(table)
    for reason in results["not_installed"].values():
        console.print(f"left out: {reason}", highlight=False, markup=False)
    console.print(json.dumps({k: results[k] for k in ("threads", "load_average")}), highlight=False)
