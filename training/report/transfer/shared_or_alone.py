"""Does learning together help? Shared model against one model per head, as large in total -> TransferReport.

Days follow the night's rules: each head is trained up to one day, calibrated on the next and evaluated on the
one after, all as known at the end of the last day. Every seed trains both sides anew; seed s is paired with
seed s.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.days import Days
from recsys.config import RunConfig
from recsys.errors import ConfigError, DataError
from recsys.metrics.inference import paired_bootstrap_seeds
from recsys.metrics.table import pooled_metric
from recsys.tasks import TaskSpec
from training.evaluation.evaluate import Steps
from training.report.transfer.advice import advise, conflict_findings
from training.report.transfer.budget import count_parameters, matched
from training.report.transfer.health import (
    Watch,
    ensemble_findings,
    failed_findings,
    health_findings,
    health_of,
    watched,
)
from training.report.transfer.probe import GradientProbe, Pair, Probe, affinities, mean_cosines
from training.report.transfer.transfer_report import (
    Curve,
    CurvePoint,
    HeadTransfer,
    PairValue,
    Sizes,
    TransferReport,
)
from training.runs import HeadPredictions, Runs

PROBES = 30
"""Looks at the gradients per shared training."""
PARTS = 10
"""Points of a curve over the training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What the trainings of one seed gave."""

    seed: int
    shared: dict[str, HeadPredictions]
    alone: dict[str, HeadPredictions]
    probes: list[Probe]
    watch: Watch


def measure_transfer(
    days: Days,
    config: RunConfig,
    seeds: Sequence[int],
    *,
    replicates: int = 1000,
    alpha: float = 0.05,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> TransferReport:
    """Train every head with the others and alone, per seed, and compare on the night of the last day.

    Args: alpha: error rate shared by the heads' verdicts (Bonferroni).
    Raises: ConfigError with fewer than two heads or seeds; DataError with too few days, or when a head cannot
        be evaluated: no label on its evaluated day, or, of a binary head, labels of one kind.
    """
    if min(len(config.tasks), len(seeds)) < 2:
        raise ConfigError(
            f"{len(config.tasks)} head(s), {len(seeds)} seed(s): transfer is between heads, and its interval "
            "is over seeds; give at least 2 of both"
        )
    runs = Runs(days, config)
    for task in config.tasks:
        _require_evaluated(task, runs)
    total = count_parameters(config, runs.state, config.tasks)
    arms = {t.name: matched(config, runs.state, t, total // len(config.tasks)) for t in config.tasks}
    steps = Steps(len(seeds) * (1 + len(arms)), on_progress)
    trained = [_train(runs, seed, arms, steps) for seed in seeds]
    level = 1 - alpha / len(config.tasks)
    heads = {t.name: _head(t, runs, trained, replicates, level) for t in config.tasks}
    sizes = {name: count_parameters(own, runs.state, [task]) for name, (own, task) in arms.items()}
    return _report(runs, trained, heads, Sizes(shared=total, alone=sizes), replicates=replicates, alpha=alpha)


def _report(
    runs: Runs,
    trained: Sequence[Trained],
    heads: dict[str, HeadTransfer],
    sizes: Sizes,
    *,
    replicates: int,
    alpha: float,
) -> TransferReport:
    """Put together what was evaluated and what was seen on the way."""
    config = runs.config
    seen = [probe for one in trained for probe in one.probes]
    cosines, falls = _pairs(mean_cosines(seen)), _pairs(affinities(seen))
    health = health_of([one.watch for one in trained])
    return TransferReport(
        advice=advise(heads, falls),
        night=runs.days[-1].day,
        seeds=tuple(one.seed for one in trained),
        trunk=config.model.trunk.name,
        balancing=config.training.balancing,
        epochs=config.training.epochs,
        heads=heads,
        sizes=sizes,
        losses=tuple(name for name in runs.weights if any(name in (p.first, p.second) for p in cosines)),
        cosines=cosines,
        curves=_curves(seen, runs.steps),
        affinities=falls,
        probes=len(seen),
        health=health,
        findings=(
            *failed_findings(heads),
            *conflict_findings(cosines),
            *health_findings(health),
            *ensemble_findings(config.model.ensemble_size),
        ),
        alpha=alpha,
        replicates=replicates,
    )


def _train(runs: Runs, seed: int, arms: Mapping[str, tuple[RunConfig, TaskSpec]], steps: Steps) -> Trained:
    """Train the shared model, watched, and every head alone, from one seed."""
    config = runs.config
    probe = GradientProbe(runs.weights, max(1, runs.steps // PROBES))
    trained = runs.train(config, config.tasks, seed, [probe])
    with watched(trained.ranker.trunk) as watch:
        shared = runs.evaluate(trained, config, config.tasks)
    steps.done()
    alone: dict[str, HeadPredictions] = {}
    for own, task in arms.values():
        alone |= runs.evaluate(runs.train(own, [task], seed), own, [task])
        steps.done()
    return Trained(seed=seed, shared=shared, alone=alone, probes=probe.probes, watch=watch)


def _require_evaluated(task: TaskSpec, runs: Runs) -> None:
    """Refuse a head whose metric would have no value, before anything is trained."""
    place = runs.plan.evaluate[task.name]
    day, known = runs.days[place].day, runs.days.labels(place)[task.label].drop_nulls()
    if known.is_empty():
        lacking = f"no impression of {day} has a label of {task.name!r}"
    elif task.kind.probability and known.n_unique() < 2:
        lacking = f"all {known.len():,} labels of {task.name!r} on {day} are {known[0]:.0f}"
    elif pooled_metric(task.kind.metric).in_lists and not runs.count_lists(task, place):
        lacking = f"no list of {day} has labels of {task.name!r} that differ"
    else:
        return
    raise DataError(
        f"{lacking}: the head cannot be evaluated; choose another --date, or leave the head out of the config"
    )


def _head(
    task: TaskSpec, runs: Runs, trained: Sequence[Trained], replicates: int, level: float
) -> HeadTransfer:
    """Compare one head; A is alone, B is shared."""
    alone = [one.alone[task.name] for one in trained]
    shared = [one.shared[task.name] for one in trained]
    rows, day = alone[0], runs.days[runs.plan.evaluate[task.name]].day
    metric = task.kind.metric
    pooled = pooled_metric(metric)
    effect = paired_bootstrap_seeds(
        metric,
        rows.label,
        [run.read(pooled) for run in alone],
        [run.read(pooled) for run in shared],
        rows.user,
        generator=np.random.default_rng(0),
        weight=rows.weight,
        lists=rows.lists,
        replicates=replicates,
        level=level,
    )
    trained_on, labels = runs.train_days(task.name), runs.train_labels(task)
    return HeadTransfer(
        metric=metric,
        alone=tuple(_value(metric, run) for run in alone),
        shared=tuple(_value(metric, run) for run in shared),
        effect=effect,
        evaluated_on=day,
        train_first=trained_on[0],
        train_last=trained_on[-1],
        train_labels=labels.len(),
        train_positives=int((labels > 0.5).sum()) if task.kind.probability else None,
    )


def _value(metric: str, run: HeadPredictions) -> float:
    pooled = pooled_metric(metric)
    return pooled.value(pooled.check(run.label, run.read(pooled), run.weight, run.lists))


def _pairs(found: Mapping[Pair, tuple[float, float, float]]) -> tuple[PairValue, ...]:
    return tuple(
        PairValue(first=first, second=second, mean=mean, error=error, negative=negative)
        for (first, second), (mean, error, negative) in found.items()
    )


def _curves(probes: Sequence[Probe], steps: int) -> tuple[Curve, ...]:
    """Average each pair's cosine over seeds and tenths of the training."""
    parts: list[list[Probe]] = [[] for _ in range(PARTS)]
    for probe in probes:
        parts[min(PARTS - 1, PARTS * probe.step // max(1, steps))].append(probe)
    points: dict[Pair, list[CurvePoint]] = {}
    for number, part in enumerate(parts):
        for pair, (mean, _, _) in mean_cosines(part).items():
            point = CurvePoint(progress=(number + 0.5) / PARTS, cosine=mean)
            points.setdefault(pair, []).append(point)
    return tuple(Curve(first=a, second=b, points=tuple(seen)) for (a, b), seen in points.items())
