"""Warm nights against cold ones on a shop whose tastes drift, and what new heads and inputs are taught.

Each night trains, and predicts its evaluated day, which no policy has seen; nothing is calibrated or gated,
so the figures are of the weights alone. A warm night goes on from the weights of the night before.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.shop_days import last_days, simulate_days
from features.days import Days
from features.lineage import still_fitted
from recsys.config import RunConfig
from recsys.log import InteractionLog
from recsys.metrics.columns import Lists
from recsys.metrics.list_auc import list_auc
from recsys.metrics.pointwise import auc, log_loss, rmse
from recsys.model.head_functions import predict
from recsys.simulator.dials import ShopDials
from recsys.stages import Stages
from recsys.tasks import TaskSpec
from training.evaluation.list_groups import lists_of_day
from training.night.plan import NEVER, Lineage, NightPlan, plan_night
from training.predict import day_logits
from training.threads import use_threads
from training.train import TrainedModel, train
from training.warm_start import Previous, new_inputs

Ranges = Mapping[str, tuple[int, int]]
Figures = dict[str, float]


def measure_nights(
    config: RunConfig, dials: ShopDials, nights: int, restart: int, hours: int, seed: int
) -> dict[str, Any]:
    """Simulate a shop; run its last nights by each policy, the last with what is new, a day in hours."""
    from benchmarks.nights.hours import measure_hours

    use_threads(config.training.threads)
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as scratch:
        log = InteractionLog(Path(scratch) / "log")
        simulate_days(log, dials, seed)
        days = last_days(log, config, Stages(Path(scratch) / "stages"))
        first = len(days) - nights - 1
        return {
            "dials": dials.model_dump(mode="json"),
            "seed": seed,
            "nights": [str(day) for day in days.dates[first + 1 :]],
            "policies": measure_policies(days, config, first, restart),
            "new_heads": {
                task.name: measure_new_head(days, config, task.name)
                for task in config.tasks
                if task.name not in {other.parent for other in config.tasks}
            },
            "new_inputs": measure_new_inputs(days, config),
            "hours": measure_hours(days, config, hours),
        }


def measure_policies(days: Days, config: RunConfig, first: int, restart: int) -> dict[str, Any]:
    """Run the nights after `first`, each policy from that night's cold start."""
    policies = {
        "cold every night": with_training(config, cold_restart=1),
        "warm": config,
        f"warm, cold every {restart} nights": with_training(config, cold_restart=restart),
    }
    start = one_night(until(days, first), config, None)
    nights = range(first + 1, len(days))
    return {name: run_policy(days, nights, chosen, start) for name, chosen in policies.items()}


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    """Give the config with other keys of `[training]`."""
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def until(days: Days, last: int) -> Days:
    """Give the days up to one, with the labels known at its end."""
    return replace(days, snapshots=days.snapshots[: last + 1], known_at=days.end_of(last), _labels={})


class Trained:
    """One night's weights, and how it is gone on from them."""

    def __init__(self, plan: NightPlan, model: TrainedModel, config: RunConfig, seconds: float) -> None:
        self.plan, self.model, self.config, self.seconds = plan, model, config, seconds

    @property
    def lineage(self) -> Lineage:
        """Give what the next night's plan asks for."""
        return Lineage(trained_until=self.plan.trained_until, cold_since=self.plan.cold_since)

    @property
    def weights(self) -> Previous:
        """Give what the next night starts from."""
        return weights_of(self.model, self.config)


def weights_of(model: TrainedModel, config: RunConfig) -> Previous:
    """Give what a training with the same features goes on from."""
    return Previous.same(model.weights(), model.ranker, model.state, config)


def one_night(days: Days, config: RunConfig, before: Trained | None) -> Trained:
    """Train the last day's night as the nightly would."""
    plan = plan_night(days, config, before.lineage if before else None)
    weights = None if before is None or plan.cold else before.weights
    began = time.process_time()
    model = train(days, plan.train, config, weights, config.training.epochs if weights is None else 1)
    return Trained(plan, model, config, time.process_time() - began)


def run_policy(days: Days, nights: Sequence[int], config: RunConfig, start: Trained) -> dict[str, Any]:
    """Run nights in a row; the figures are the mean over them."""
    before, figures, seconds, cold = start, [], [], []
    for night in nights:
        known = until(days, night)
        before = one_night(known, config, before)
        figures.append(evaluated(known, before.model, before.plan, config.tasks, config))
        seconds.append(before.seconds)
        cold.append(before.plan.cold)
    return {
        "figures": {name: float(np.mean([f[name] for f in figures])) for name in figures[0]},
        "by_night": figures,
        "cold": cold,
        "cpu_seconds": round(sum(seconds), 1),
    }


def evaluated(
    days: Days, model: TrainedModel, plan: NightPlan, tasks: Sequence[TaskSpec], config: RunConfig
) -> Figures:
    """Measure each head on its evaluated day."""
    found: Figures = {}
    for task in tasks:
        i = plan.evaluate[task.name]
        logits, rows = day_logits(model, days, i, config)
        label = rows.labels[task.name]
        known = ~np.isnan(label)
        requests = requests_of_day(days, i, config).take(known)
        found |= head_figures(task, label[known], predict(logits[task.name], task)[known], requests)
    return found


def head_figures(task: TaskSpec, label: np.ndarray, prediction: np.ndarray, requests: Lists) -> Figures:
    """Give a head's AUC inside requests, AUC of all rows and log loss, or its RMSE, of labelled rows [N]."""
    if not task.kind.probability:
        return {f"{task.name} RMSE": rmse(label, prediction)}
    p = prediction.astype(np.float64).clip(1e-7, 1 - 1e-7)
    return {
        f"{task.name} list_auc": list_auc(label, p, requests),
        f"{task.name} AUC": auc(label, p),
        f"{task.name} log loss": log_loss(label, p),
    }


def requests_of_day(days: Days, i: int, config: RunConfig) -> Lists:
    """Number the requests of day i's rows; a simulated one is of one instant, so no state is to be held."""
    return Lists.unplaced(lists_of_day(days, i, config, "request").fill_null(-1))


def measure_new_head(days: Days, config: RunConfig, new: str) -> dict[str, Any]:
    """Add a task on the last night, by each way that its labels of older days can be learned."""
    old = config.model_copy(update={"tasks": tuple(t for t in config.tasks if t.name != new)})
    return measure_ways(days, config, old)


def measure_new_inputs(days: Days, config: RunConfig) -> dict[str, Any]:
    """Add inputs on the last night, by each way that they can be learned from older days."""
    windows = config.features.model_copy(update={"window_days": (max(config.features.window_days),)})
    without = {
        "attributes": config.model_copy(update={"attributes": ()}),
        "counts of days": config.model_copy(update={"features": windows}),
    }
    return {name: measure_ways(days, config, old) for name, old in without.items()}


def measure_ways(days: Days, config: RunConfig, old: RunConfig) -> dict[str, Any]:
    """Run the last night with a config whose heads or inputs the night before did not have, in each way."""
    night, epochs = days.last, config.training.epochs
    before = one_night(until(days, night - 1).labelled_for(old.tasks), old, None)
    known, started = until(days, night), before_with(before, old, config)
    lineage = replace(before.lineage, new_inputs=new_inputs(started, config))
    plan = plan_night(known, config, lineage)
    never: Ranges = {task.name: NEVER for task in config.tasks}
    heads, earlier = plan.new_heads, {**never, **plan.catch_up}
    own = {**never, **{task: days for task, days in plan.catch_up.items() if task in heads}}

    def new_days(weights: Previous) -> TrainedModel:
        return train(known, plan.train, config, weights, 1)

    def first(periods: Ranges, **options: Any) -> TrainedModel:
        made = train(known, dict(periods), config, started, epochs, **options)
        return new_days(weights_of(made, config))

    ways: dict[str, Callable[[], TrainedModel]] = {"new days alone": lambda: new_days(started)}
    if heads:
        ways["older days first, own parameters"] = lambda: first(own, alone=heads)
    ways |= {
        "older days first, all that is new": lambda: first(earlier, alone=heads, new_inputs=True),
        "older days first, all parameters": lambda: first(own if heads else earlier),
        "cold start": lambda: one_night(known, config, None).model,
    }
    return {name: _measured(way, known, plan, config) for name, way in ways.items()}


def _measured(
    way: Callable[[], TrainedModel], days: Days, plan: NightPlan, config: RunConfig
) -> dict[str, Any]:
    began = time.process_time()
    model = way()
    seconds = time.process_time() - began
    figures = evaluated(days, model, plan, config.tasks, config)
    return {"figures": figures, "cpu_seconds": round(seconds, 1)}


def before_with(before: Trained, old: RunConfig, config: RunConfig) -> Previous:
    """Give weights of fewer tasks to a config with more."""
    same = weights_of(before.model, old)
    return replace(same, state=still_fitted(same.fitted, old, config))
