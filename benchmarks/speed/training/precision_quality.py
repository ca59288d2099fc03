"""What bfloat16 costs in quality: the product model's figures on a day it has not learned, over seeds.

The shop's days are learned once per precision and seed, as a night does; the seed draws the weights, the
order of rows and the hidden ids. What a precision costs is to be read beside what a seed moves.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.nights.nights import evaluated, one_night, with_training
from benchmarks.speed.shop_days import last_days, shop_log
from benchmarks.speed.training.systems import PRECISIONS
from recsys.config import RunConfig
from training.threads import use_threads

Quality = dict[str, dict[str, list[float]]]
"""Precision -> figure -> one value a seed."""


def measure_precision(config: RunConfig, log: Path | None, seed: int, seeds: Sequence[int]) -> Quality:
    """Train and evaluate the last night per precision and seed. Args: seed: of the simulated log."""
    use_threads(config.training.threads)
    found: Quality = {}
    with shop_log(seed, log) as (own, stages):
        days = last_days(own, config, stages)
        for precision in PRECISIONS:
            for number in seeds:
                chosen = with_training(config, precision=precision, seed=number)
                made = one_night(days, chosen, None)
                figures = evaluated(days, made.model, made.plan, config.tasks, chosen)
                for name, value in figures.items():
                    found.setdefault(precision, {}).setdefault(name, []).append(value)
                said = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
                print(f"product model, {precision}, seed {number}: {said}", file=sys.stderr, flush=True)
    return found
