"""Sets that are logs: configs and simple systems on the days of one night, trained and evaluated as it does.

Each head learns the days that the night of the log's last day would, is calibrated on the next day and
evaluated on the one after. Choices may look at the calibration day before calibration, never at the last one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from benchmarks.quality.models.fitting import trunks_of_one_size
from benchmarks.quality.report import Figure, Kept, ModelRow, mean_if_known
from features.build import build_snapshots
from features.encode import Encoder
from recsys.calibration import fit_affine, fit_platt
from recsys.config import RunConfig
from recsys.log import InteractionLog
from recsys.metrics.columns import group_codes
from recsys.metrics.pooled import Statistic, pooled_metric
from recsys.stages import Stages
from recsys.tasks import TaskSpec
from training.baselines.design import MAX_ROWS, Sample, concat_samples, sample_of
from training.data import EncodedRows, encode_rows
from training.report.effects import primary_metric
from training.runs import HeadPredictions, HeadScores, Runs
from training.train import build_model

Scores = Mapping[str, HeadScores]
"""By task: one training's predictions."""
REPLICATES = 300


class NightSet:
    """A log, the config whose days are learnt, and where snapshots are kept."""

    def __init__(self, log: InteractionLog, config: RunConfig, stages: Stages) -> None:
        """Build the snapshots of the whole log.

        Raises: DataError when the log has too few days to learn, calibrate and evaluate apart.
        """
        self.log, self.config, self.stages = log, config, stages
        self.runs = self._runs(config)

    def train(self, config: RunConfig, seeds: int, news: Callable[[str], None], name: str) -> list[Scores]:
        """Train a variant of the config from seeds 0, 1, …; other features mean other snapshots."""
        same = config.features == self.config.features and config.attributes == self.config.attributes
        runs = self.runs if same else self._runs(config)
        found: list[Scores] = []
        for seed in range(seeds):
            trained = runs.train(config, config.tasks, seed, prepared=runs.prepared)
            found.append(runs.score(trained, config, config.tasks))
            said = ", ".join(
                f"{t.name} {primary_value(t, found[-1][t.name].known):.4f}" for t in config.tasks
            )
            news(f"{name}, seed {seed}: validation {said}")
        return found

    def fit(self, name: str, fit: "FitBaseline", news: Callable[[str], None]) -> tuple[Scores, str]:
        """Fit a simple system per head on the same days, and calibrate it as ours are: scores and a note."""
        scores, notes = {}, []
        for task in self.config.tasks:
            plan = self.runs.plan
            encoded, later = self._encoded(task, plan.calibrate), self._encoded(task, plan.evaluate)
            fitted = fit(task, self, encoded)
            predicted = [_head_predictions(task, part, fitted.predict) for part in (encoded, later)]
            evaluated = _calibrated(task, *predicted) if fitted.calibrate else predicted[1]
            scores[task.name] = HeadScores(known=predicted[0], raw=predicted[1], evaluated=evaluated)
            notes.append(f"{task.name}: {fitted.note}" if fitted.note else "")
            news(f"{name}, {task.name}: validation {primary_value(task, predicted[0]):.4f} {fitted.note}")
        return scores, "; ".join(note for note in notes if note)

    def sample(self, task: TaskSpec) -> Sample:
        """Flatten the labelled rows that a head learns from, at most some `MAX_ROWS` of them."""
        first, last = self.runs.plan.train[task.name]
        encoded = [(i, encoded) for i in range(first, last + 1) for encoded in self.runs.prepared.encoded[i]]
        known = [np.flatnonzero(~np.isnan(encoded.labels[task.name])) for _, encoded in encoded]
        share = MAX_ROWS / max(sum(rows.size for rows in known), 1)
        rng = np.random.default_rng(0)
        chosen = [rows[rng.random(rows.size) < share] for rows in known]
        return concat_samples(
            [
                sample_of(encoded, self.encoder, rows, task, i)
                for (i, encoded), rows in zip(encoded, chosen, strict=True)
                if rows.size
            ]
        )

    @cached_property
    def encoder(self) -> Encoder:
        """Give the encoder of the training days."""
        return Encoder.from_config(self.config, self.runs.prepared.state)

    def trunks(self) -> dict[str, RunConfig]:
        """Give the config with every trunk, at the size of its own, by name."""
        config, tasks = self.config, [t.name for t in self.config.tasks]
        ranker, _ = build_model(config, self.runs.prepared.state, None)
        shapes = trunks_of_one_size(config.model.trunk, ranker.num_trunk_in, tasks)
        return {
            name: config.model_copy(update={"model": config.model.model_copy(update={"trunk": shape})})
            for name, shape in shapes.items()
        }

    @property
    def protocol(self) -> str:
        """Say which days are for what, by the first head's."""
        chain, plan, task = self.runs.chain, self.runs.plan, self.config.tasks[0].name
        trained = self.runs.train_days(task)
        chosen, tested = chain[plan.calibrate[task]].day, chain[plan.evaluate[task]].day
        return (
            f"trained on {trained[0]} to {trained[-1]}, chosen and calibrated on {chosen}, tested on {tested}"
        )

    def budget(self, trials: int) -> str:
        """Say how much tuning each row had."""
        return f"one config for all of ours; lightgbm: {trials} drawn settings a head, chosen by validation"

    def _encoded(self, task: TaskSpec, periods: Mapping[str, int]) -> EncodedRows:
        runs, i = self.runs, periods[task.name]
        before = runs.chain[i - 1] if i else None
        return encode_rows(
            self.encoder, runs.chain[i], before, runs.labels[runs.chain[i].day], self.config.tasks
        )

    def _runs(self, config: RunConfig) -> Runs:
        last = self.log.require_days("impressions")[-1]
        return Runs(build_snapshots(self.log, last, config, self.stages), config)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedBaseline:
    """One head's simple system."""

    predict: Callable[[EncodedRows, np.ndarray], np.ndarray]
    """(EncodedRows, row numbers [N]) -> predictions [N]."""
    note: str = ""
    calibrate: bool = True


FitBaseline = Callable[[TaskSpec, NightSet, EncodedRows], FittedBaseline]
"""(task, the set, the validation day's encoded) -> a fitted system."""


def night_row(
    name: str, tasks: Sequence[TaskSpec], runs: Sequence[Scores], note: str, *, ours: bool
) -> ModelRow:
    """Measure a model: per head the mean over seeds, and an interval by users."""
    heads = {}
    for task in tasks:
        known = [primary_value(task, run[task.name].known) for run in runs]
        evaluated = [run[task.name].evaluated for run in runs]
        heads[task.name] = {
            metric: over_users(metric, evaluated, known if metric == primary_metric(task) else None)
            for metric in metrics_of(task)
        }
    return ModelRow(name=name, heads=heads, seeds=len(runs), note=note, ours=ours)


def kept(
    tasks: Sequence[TaskSpec], rows: Mapping[str, Sequence[Mapping[str, HeadPredictions]]]
) -> list[Kept]:
    """Keep the predictions of rows, by run and task, for paired differences of every head and metric."""
    found = []
    for task in tasks:
        one = next(iter(rows.values()))[0][task.name]
        predictions = {name: [run[task.name].prediction for run in runs] for name, runs in rows.items()}
        found += [
            Kept(
                head=task.name,
                metric=metric,
                predictions=predictions,
                pooled=metric,
                label=one.label,
                user=one.user,
                weight=one.weight,
            )
            for metric in metrics_of(task)
        ]
    return found


def evaluated(runs: Sequence[Scores]) -> list[dict[str, HeadPredictions]]:
    """Give the calibrated predictions of the evaluated day, by run and task."""
    return [{task: scores.evaluated for task, scores in run.items()} for run in runs]


def metrics_of(task: TaskSpec) -> tuple[str, ...]:
    """Name what a head is measured by: order and calibration, or error."""
    return ("auc", "log_loss") if task.is_binary else ("rmse",)


def primary_value(task: TaskSpec, evaluated: HeadPredictions) -> float:
    """Give a head's AUC or RMSE on some rows."""
    return over_users(primary_metric(task), [evaluated], None, replicates=0).value


def over_users(
    metric: str,
    runs: Sequence[HeadPredictions],
    validation: Sequence[float] | None,
    replicates: int = REPLICATES,
) -> Figure:
    """Average a metric over seeds; the interval is a bootstrap of users, one draw for all seeds.

    Draws on which the metric is not defined, such as an AUC without positives, are left out.
    """
    statistics, num_users = _statistics(metric, runs)
    each = [statistic(np.ones(num_users)) for statistic in statistics]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(replicates):
        times = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users).astype(float)
        drawn.append(float(np.mean([statistic(times) for statistic in statistics])))
    defined = [value for value in drawn if not math.isnan(value)]
    low, high = np.quantile(defined, [0.025, 0.975]).tolist() if defined else (None, None)
    known = mean_if_known(validation)
    return Figure(value=float(np.mean(each)), low=low, high=high, runs=tuple(each), validation=known)


def _statistics(metric: str, runs: Sequence[HeadPredictions]) -> tuple[list[Statistic], int]:
    """Give each run's metric of a draw of users, and how many users there are."""
    pooled = pooled_metric(metric)
    codes, num_users = group_codes("user", runs[0].user, runs[0].user.size)
    return [pooled.statistic(pooled.check(r.label, r.prediction, r.weight), codes) for r in runs], num_users


def _calibrated(task: TaskSpec, known: HeadPredictions, evaluated: HeadPredictions) -> HeadPredictions:
    """Fit Platt's sigmoid, or a line, on the calibration day's predictions."""
    if not task.is_binary:
        line = fit_affine(known.prediction, known.label, low=task.low, high=task.high, weight=known.weight)
        return replace(evaluated, prediction=line.apply(evaluated.prediction))
    sigmoid = fit_platt(_logit(known.prediction), known.label, known.weight)
    return replace(evaluated, prediction=sigmoid.apply(_logit(evaluated.prediction)))


def _logit(probability: np.ndarray) -> np.ndarray:
    p = probability.clip(1e-6, 1 - 1e-6)
    found: np.ndarray = np.log(p) - np.log1p(-p)
    return found


def _head_predictions(
    task: TaskSpec, encoded: EncodedRows, predict: Callable[[EncodedRows, np.ndarray], np.ndarray]
) -> HeadPredictions:
    rows = np.flatnonzero(~np.isnan(encoded.labels[task.name]))
    return HeadPredictions(
        prediction=np.asarray(predict(encoded, rows)),
        label=encoded.labels[task.name][rows],
        user=encoded.user_key[rows],
        weight=encoded.weight[rows],
    )
