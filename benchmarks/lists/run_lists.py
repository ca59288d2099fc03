"""`recsys bench lists`: seeds times logging regimes, a process for each processor; the tree of its JSON."""

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commit import commit
from benchmarks.lists.compare import (
    ENOUGH,
    NEAR,
    CellResult,
    metrics_of_all,
    metrics_of_regime,
    paired,
    true_values,
)
from benchmarks.lists.log_metrics import METRICS, Evidence
from benchmarks.lists.policies import (
    FUNNEL,
    ORACLE,
    OWN_CLICKS,
    RANDOM,
    Models,
    Policy,
    all_policies,
    fit_models,
)
from benchmarks.lists.shop_night import REGIMES, ShopNight, check_valued
from benchmarks.lists.true_value import TrueValue, measure_hash
from recsys.config import RunConfig, build_fusion
from recsys.cpus import num_cpus
from recsys.simulator.dials import ShopDials
from training.threads import use_threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is run."""

    config: RunConfig
    seeds: Sequence[int]
    regimes: Sequence[str]
    requests: int
    """Whose pages are valued; each is of a user of its own."""
    dials: dict[str, Any]
    """Of the shop, beside those of a regime."""


def measure_lists(asked: Asked) -> dict[str, Any]:
    """Value every policy in every cell, and compare the metrics with the truth.

    Raises: ConfigError when the truth cannot value lists of the config.
    """
    check_valued(asked.config)
    began = time.perf_counter()
    cells = [(asked, regime, seed) for seed in asked.seeds for regime in asked.regimes]
    workers = min(num_cpus(), len(cells))
    if workers == 1:
        results = [_cell(*cell) for cell in cells]
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
            results = list(pool.map(_cell, *zip(*cells, strict=True)))
    return {
        **tree_of(results, asked),
        "commit": commit(),
        "measure": measure_hash(),
        "seconds": round(time.perf_counter() - began, 1),
    }


def tree_of(results: Sequence[CellResult], asked: Asked) -> dict[str, Any]:
    """Make the JSON of all cells; the figures on top are those of the first regime."""
    by_regime = {
        regime: _regime_tree([r for r in results if r.regime == regime], asked.seeds)
        for regime in asked.regimes
    }
    return {
        "seeds": list(asked.seeds),
        "requests": asked.requests,
        "dials": asked.dials,
        "oracle": ORACLE,
        "chance": RANDOM,
        "near": NEAR,
        "enough": ENOUGH,
        "policies": metrics_of_all({name: tree["metrics"] for name, tree in by_regime.items()}),
        "true_value": by_regime[asked.regimes[0]]["true_value"],
        "regimes": by_regime,
    }


def _regime_tree(cells: Sequence[CellResult], seeds: Sequence[int]) -> dict[str, Any]:
    names = list(cells[0].kinds)
    return {
        "true_value": true_values(cells, ORACLE, RANDOM),
        "metrics": metrics_of_regime(cells, seeds),
        "above_funnel": {name: paired(cells, name, FUNNEL) for name in names},
        "above_own_clicks": {name: paired(cells, name, OWN_CLICKS) for name in names},
        "figures": {
            metric: {name: _known(float(np.mean([c.metrics[metric][name] for c in cells]))) for name in names}
            for metric in METRICS
        },
        "facts": {name: float(np.mean([c.facts[name] for c in cells])) for name in cells[0].facts},
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _cell(asked: Asked, regime: str, seed: int) -> CellResult:
    """Simulate, train and value one cell."""
    use_threads(1)
    dials = ShopDials(**{**asked.dials, **REGIMES[regime]})
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as scratch:
        night = ShopNight.simulate(Path(scratch), dials, seed, asked.config, asked.requests)
        began = time.process_time()
        models = fit_models(night)
        spent = time.process_time() - began
        found = value_night(night, models, regime, seed)
        return replace(found, facts={**found.facts, "training_cpu_s": spent})


def value_night(night: ShopNight, models: Models, regime: str, seed: int) -> CellResult:
    """Value all policies, and measure what the log says of them."""
    began = time.process_time()
    fusion = build_fusion(night.config.tasks, night.config.fusion)
    truth = TrueValue.of(night.shop, night.audience.requests, night.item_ids, fusion)
    policies = all_policies(night, models, truth, seed)
    evidence = Evidence.of(night.logged, night.audience.num_users, models.today, models.hindsight)
    shuffled = evidence.with_random_labels(np.random.default_rng([seed, 17]))
    values = {name: truth.of_pages(policy.pages) for name, policy in policies.items()}
    places = policies[FUNNEL].pages.shape[1]
    return CellResult(
        seed=seed,
        regime=regime,
        kinds={name: policy.kind for name, policy in policies.items()},
        values={name: value.value for name, value in values.items()},
        parts={
            name: {
                "clicks": float(value.clicks.mean()) / places,
                "purchases": float(value.purchases.mean()) / places,
                "stars": float(value.stars.mean()),
            }
            for name, value in values.items()
        },
        metrics=_measured(evidence, policies),
        shuffled=_measured(shuffled, policies),
        facts={
            "requests": float(night.audience.num_users),
            "items": float(night.columns.size),
            "logged_click_rate": float(np.nanmean(night.logged.labels["click"])),
            "valuing_cpu_s": time.process_time() - began,
        },
    )


def _measured(evidence: Evidence, policies: dict[str, Policy]) -> dict[str, dict[str, float]]:
    return {
        name: {policy: metric(evidence, of) for policy, of in policies.items()}
        for name, metric in METRICS.items()
    }
