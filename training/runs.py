"""Many trainings on the days of one night: all on the same days, each predicts the same later ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import polars as pl

from features.days import Days
from recsys.calibration import Calibrator
from recsys.config import RunConfig
from recsys.encoding import EncoderState
from recsys.metrics.columns import Lists
from recsys.metrics.list_auc import count_lists
from recsys.metrics.metric import RowMetric
from recsys.model.head_functions import predict
from recsys.model.scorer import calibrate
from recsys.tasks import TaskSpec
from training.calibrate import fit_calibration, with_item_terms
from training.data import Cutting, ScoredRows, count_steps, held_scores, sizes_of
from training.evaluation.list_groups import ListGroup, list_group_of, lists_of_day
from training.fit_inputs import loss_weights
from training.night.plan import plan_night
from training.predict import day_logits
from training.train import Prepared, TrainedModel, fit_state, prepare, train
from training.trainer.watcher import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadPredictions:
    """One head's predictions of the labelled rows [N] of a day."""

    prediction: np.ndarray
    list_prediction: np.ndarray
    """With the user's state and the clock held as at the first impression of the row's list."""
    lists: Lists
    label: np.ndarray
    user: np.ndarray
    weight: np.ndarray

    def read(self, metric: RowMetric) -> np.ndarray:
        """Give the predictions that a metric reads."""
        return self.list_prediction if metric.in_lists else self.prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadScores:
    """One head of one training, on two days that it was not trained on."""

    known: HeadPredictions
    """The calibration day, before calibration: what a choice may look at."""
    raw: HeadPredictions
    """The evaluated day, before calibration."""
    evaluated: HeadPredictions


class Runs:
    """The days of one night; each training on them is one call."""

    def __init__(self, days: Days, config: RunConfig) -> None:
        """Plan the night of the last day.

        Raises: DataError when there are too few periods to train, calibrate and evaluate apart.
        """
        self.days, self.config = days, config
        self.plan = plan_night(days, config, None)

    @cached_property
    def state(self) -> EncoderState:
        """Fit vocabularies and statistics as the shared model's training does."""
        return fit_state(self.days, list(self.plan.train_periods), self.config, None)

    @cached_property
    def prepared(self) -> Prepared:
        """Encode the days of a training of all heads, once; kept in memory."""
        return prepare(self.days, self.plan.train, self.config)

    @property
    def steps(self) -> int:
        """Count the steps of a shared training."""
        sizes = sizes_of(self.days, self.plan.train_periods)
        return count_steps(sizes.values(), Cutting.from_config(self.config), self.config.training.epochs)

    @property
    def weights(self) -> dict[str, float]:
        """Give the config's weight of every loss."""
        return loss_weights(self.config, self.config.tasks)

    def train_days(self, task: str) -> list[date]:
        """Give the days that a head is trained on."""
        return self.days.dates_of(self._train_places(task))

    def train_labels(self, task: TaskSpec) -> pl.Series:
        """Give the known labels that a head is trained on."""
        labels = [self.days.labels(i)[task.label] for i in self._train_places(task.name)]
        return pl.concat([day.cast(pl.Float64) for day in labels]).drop_nulls()

    def _train_places(self, task: str) -> range:
        first, last = self.plan.train[task]
        return range(first, last + 1)

    def train(
        self,
        config: RunConfig,
        tasks: Sequence[TaskSpec],
        seed: int,
        watchers: Sequence[Watcher] = (),
        prepared: Prepared | None = None,
    ) -> TrainedModel:
        """Train some heads with a config's widths from a seed; `prepared` saves encoding the days again."""
        training = config.training.model_copy(update={"seed": seed})
        return train(
            self.days,
            {task.name: self.plan.train[task.name] for task in tasks},
            config.model_copy(update={"training": training}),
            None,
            training.epochs,
            tasks=tasks,
            watchers=watchers,
            prepared=prepared,
        )

    def evaluate(
        self, trained: TrainedModel, config: RunConfig, tasks: Sequence[TaskSpec]
    ) -> dict[str, HeadPredictions]:
        """Calibrate each head on its own day and predict its evaluated day."""
        return {name: scores.evaluated for name, scores in self.score(trained, config, tasks).items()}

    def score(
        self, trained: TrainedModel, config: RunConfig, tasks: Sequence[TaskSpec]
    ) -> dict[str, HeadScores]:
        """Predict each head's calibration day and evaluated day; the latter also calibrated on the former."""
        plan, names = self.plan, [task.name for task in tasks]
        wanted = {plan.calibrate[n] for n in names} | {plan.evaluate[n] for n in names}
        scored = {i: day_logits(trained, self.days, i, config) for i in sorted(wanted)}
        calibration: dict[str, Calibrator] = {}
        for task in tasks:
            logits, encoded = scored[plan.calibrate[task.name]]
            label = encoded.labels[task.name]
            rows = pl.DataFrame({"weight": encoded.weight, "shown_at": encoded.shown_at, task.label: label})
            calibration |= fit_calibration([task], logits, rows, config.calibration, encoded.items)
        days = {i: self._scored_day(trained, config, i, *scored[i]) for i in wanted}
        found = {}
        for task in tasks:
            known, later = days[plan.calibrate[task.name]], days[plan.evaluate[task.name]]
            calibrated = [found[task.name] for found in later.calibrated(tasks, calibration)]
            found[task.name] = HeadScores(
                known=known.predictions(task, known.raw(task)),
                raw=later.predictions(task, later.raw(task)),
                evaluated=later.predictions(task, calibrated),
            )
        return found

    def _scored_day(
        self,
        trained: TrainedModel,
        config: RunConfig,
        i: int,
        logits: dict[str, np.ndarray],
        rows: ScoredRows,
    ) -> "_ScoredDay":
        held = held_scores(
            logits, lambda days: day_logits(trained, days, i, config)[0], self.days, i, self.lists(i)
        )
        lists = Lists.unplaced(self.lists(i).fill_null(-1))
        return _ScoredDay(rows=rows, lists=lists, logits=(logits, held))

    def lists(self, i: int) -> pl.Series:
        """Number the lists of day i's rows [N]; null for a row that is alone."""
        return lists_of_day(self.days, i, self.config, self.list_group)

    def count_lists(self, task: TaskSpec, i: int) -> int:
        """Count the lists of day i whose labels of a head differ."""
        label = self.days.labels(i)[task.label].cast(pl.Float64).fill_null(float("nan"))
        return count_lists(label.to_numpy(), Lists.unplaced(self.lists(i).fill_null(-1)))[0]

    @cached_property
    def list_group(self) -> ListGroup:
        """Choose what a list is, on the days that heads are calibrated and evaluated on."""
        places = {
            t.name: [self.plan.calibrate[t.name], self.plan.evaluate[t.name]] for t in self.config.tasks
        }
        return list_group_of(self.days, places, self.config.tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ScoredDay:
    """A day's rows [N] and what is said of them."""

    rows: ScoredRows
    lists: Lists
    logits: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
    """Task -> raw logits: live, and with the state held as lists began."""

    def raw(self, task: TaskSpec) -> list[np.ndarray]:
        """Give predictions [N] before calibration: live, and with the state held."""
        return [predict(logits[task.name], task) for logits in self.logits]

    def calibrated(
        self, tasks: Sequence[TaskSpec], calibration: dict[str, Calibrator]
    ) -> list[dict[str, np.ndarray]]:
        """Give calibrated predictions [N] by task: live, and with the state held."""
        # An item's numbers are nightly ones, the same as its list began.
        return [
            calibrate(with_item_terms(logits, self.rows.items, calibration), tasks, calibration)
            for logits in self.logits
        ]

    def predictions(self, task: TaskSpec, both: Sequence[np.ndarray]) -> HeadPredictions:
        """Take the rows that have a label. Args: both: predictions [N], live and with the state held."""
        known = ~np.isnan(self.rows.labels[task.name])
        live, held = both
        return HeadPredictions(
            prediction=live[known],
            list_prediction=held[known],
            lists=self.lists.take(known),
            label=self.rows.labels[task.name][known],
            user=self.rows.user_key[known],
            weight=self.rows.weight[known],
        )
