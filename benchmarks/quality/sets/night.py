"""Sets that are logs: configs and simple systems on the days of one night, trained and evaluated as it does.

Each head is trained on the days that the night of the log's last day would take, calibrated on the next day
and evaluated on the one after. Choices may look at the calibration day before calibration, never at the last.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from benchmarks.quality.models.fitting import trunks_of_one_size
from benchmarks.quality.quality_set import Measure, Row, Run
from features.build import build_snapshots
from features.encode import Encoder
from features.held import held_day
from recsys.calibration import fit_affine, fit_platt
from recsys.config import RunConfig
from recsys.log import InteractionLog
from recsys.metrics.columns import Lists
from recsys.metrics.table import row_metric
from recsys.stages import Stages
from recsys.tasks import TaskSpec
from training.baselines.design import MAX_ROWS, Sample, concat_samples, sample_of
from training.build_model import build_model
from training.data import EncodedRows, encode_day
from training.runs import HeadPredictions, Runs

_BESIDE = ("auc", "log_loss", "ece")
"""What is shown of a probability beside its primary metric."""
LIST_WEIGHTS = (0.1, 0.3, 1.0)
"""Of the order inside lists beside a binary head's log loss; the configs have 0."""


class Night:
    """A log, the config whose days are trained on, and where snapshots are kept."""

    def __init__(self, log: InteractionLog, config: RunConfig, stages: Stages) -> None:
        """Build the snapshots of the whole log.

        Raises: DataError when the log has too few days to train, calibrate and evaluate apart.
        """
        self.log, self.config, self.stages = log, config, stages
        self._planned: list[Runs] = []
        self.runs = self._runs(config)
        self._encoded: dict[int, tuple[EncodedRows, Lists, HeldRows | None]] = {}

    def train(self, config: RunConfig, seed: int) -> Run:
        """Train a variant of the config; other features mean other snapshots.

        The test outputs are calibrated; those named "raw <task>" are not. "list <task>" has the state held as
        lists began.
        """
        runs = self._runs(config)
        trained = runs.train(config, config.tasks, seed, prepared=runs.prepared)
        scores = runs.score(trained, config, config.tasks)
        known, raw, test = (
            _outputs({task: getattr(of, day) for task, of in scores.items()})
            for day in ("known", "raw", "evaluated")
        )
        return Run(validation=known, test=test | {f"raw {name}": found for name, found in raw.items()})

    def fit(self, fit: "FitBaseline") -> Run:
        """Fit a simple system per head on the same days, and calibrate it as ours are."""
        plan, notes = self.runs.plan, []
        validation: dict[str, np.ndarray] = {}
        test: dict[str, np.ndarray] = {}
        for task in self.config.tasks:
            known, later = (self.labelled(task, of) for of in (plan.calibrate, plan.evaluate))
            fitted = fit(task, self, known)
            validation |= known.outputs(fitted.predict)
            test |= later.outputs(fitted.predict)
            if fitted.calibrate:  # an order inside lists needs none
                test[task.name] = _calibrated(task, known, validation[task.name], test[task.name])
            notes += [f"{task.name}: {fitted.note}"] if fitted.note else []
        return Run(validation=validation, test=test, note="; ".join(notes))

    def validation_measures(self) -> list[Measure]:
        """Measure each head's order, or error, on the calibration day."""
        return [
            self.labelled(task, self.runs.plan.calibrate).measure(task.kind.metric)
            for task in self.config.tasks
        ]

    def test_measures(self) -> list[Measure]:
        """Measure each head's order and calibration, or error, on the evaluated day."""
        return [
            self.labelled(task, self.runs.plan.evaluate).measure(metric)
            for task in self.config.tasks
            for metric in (task.kind.metric, *(_BESIDE if task.kind.probability else ()))
        ]

    def labelled(self, task: TaskSpec, periods: Mapping[str, int]) -> "LabelledRows":
        """Encode the day that a head is calibrated or evaluated on."""
        day = periods[task.name]
        if day not in self._encoded:
            self._encoded[day] = self._encode(day)
        return LabelledRows(task, *self._encoded[day])

    def _encode(self, day: int) -> "tuple[EncodedRows, Lists, HeldRows | None]":
        """Encode a day, and its rows whose state is another one as their lists began."""
        days, lists = self.runs.days, self.runs.lists(day)
        with held_day(days, day, lists) as held:
            tasks = self.config.tasks
            moved = HeldRows(encode_day(self.encoder, held.days, day, tasks), held.rows) if held else None
        encoded = encode_day(self.encoder, days, day, self.config.tasks)
        return encoded, Lists.unplaced(lists.fill_null(-1)), moved

    def sample(self, task: TaskSpec) -> Sample:
        """Flatten the labelled rows that a head is trained on, at most about `MAX_ROWS` of them."""
        first, last = self.runs.plan.train[task.name]
        encoded = [(i, self.runs.prepared.encoded[i]) for i in range(first, last + 1)]
        known = [np.flatnonzero(~np.isnan(encoded.labels[task.name])) for _, encoded in encoded]
        share = MAX_ROWS / max(sum(rows.size for rows in known), 1)
        rng = np.random.default_rng(0)
        chosen = [rows[rng.random(rows.size) < share] for rows in known]
        return concat_samples(
            [
                sample_of(encoded, self.encoder, rows, task.name, i)
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

    def list_orders(self) -> dict[str, Row]:
        """Give rows whose binary heads learn the order inside lists, too; each answers a question."""
        variants = {w: partial(self.train, _with_list_weight(self.config, w)) for w in LIST_WEIGHTS}
        return {
            f"list_weight_{weight:g}": Row(train, shown=False, least_seeds=2, on_request=True)
            for weight, train in variants.items()
        }

    @property
    def protocol(self) -> str:
        """Say which days are for what, by the first head's."""
        days, plan, task = self.runs.days, self.runs.plan, self.config.tasks[0].name
        trained = self.runs.train_days(task)
        chosen, tested = days.dates_of([plan.calibrate[task], plan.evaluate[task]])
        return (
            f"trained on {trained[0]} to {trained[-1]}, chosen and calibrated on {chosen}, tested on {tested}"
        )

    def budget(self, trials: int) -> str:
        """Say how much tuning each row had."""
        return f"one config for all of ours; lightgbm: {trials} drawn settings a head, chosen by validation"

    def _runs(self, config: RunConfig) -> Runs:
        """Plan the night for the features of a config, once."""
        for runs in self._planned:
            if _inputs_of(runs.config) == _inputs_of(config):
                return runs
        last = self.log.require_days("impressions")[-1]
        self._planned.append(Runs(build_snapshots(self.log, last, config, self.stages), config))
        return self._planned[-1]


class LabelledRows:
    """The rows [N] of a day that have a label of one head."""

    def __init__(
        self,
        task: TaskSpec,
        encoded: EncodedRows,
        lists: Lists | None = None,
        held: "HeldRows | None" = None,
    ) -> None:
        """Select them. Args: lists, held: of the day's rows, where they are measured inside lists."""
        self.task, self.encoded, self.held = task, encoded, held
        self.rows = np.flatnonzero(~np.isnan(encoded.labels[task.name]))
        self.label = encoded.labels[task.name][self.rows]
        self.weight = encoded.weight[self.rows]
        self.lists = None if lists is None else lists.take(self.rows)

    def measure(self, metric: str) -> Measure:
        """Measure predictions of the head."""
        user, name = self.encoded.user_key[self.rows], self.task.name
        output = f"list {name}" if row_metric(metric).in_lists else name
        return Measure(
            head=name,
            metric=metric,
            output=output,
            pooled=metric,
            label=self.label,
            user=user,
            weight=self.weight,
            lists=self.lists,
        )

    def outputs(self, predict: "Predict") -> dict[str, np.ndarray]:
        """Predict them [N]: live, and with users' state held as their lists began."""
        live = predict(self)
        return {self.task.name: live, f"list {self.task.name}": self._as_lists_began(predict, live)}

    def _as_lists_began(self, predict: "Predict", live: np.ndarray) -> np.ndarray:
        if self.held is None:
            return live
        again, found = LabelledRows(self.task, self.held.encoded), live.copy()
        if again.rows.size:
            found[np.searchsorted(self.rows, self.held.places[again.rows])] = predict(again)
        return found


Predict = Callable[[LabelledRows], np.ndarray]


@dataclass(frozen=True, slots=True)
class HeldRows:
    """The rows of a day whose state is another one as their lists began, and their places among all rows."""

    encoded: EncodedRows
    places: np.ndarray


def _inputs_of(config: RunConfig) -> tuple[object, ...]:
    """Give what of a config decides how rows are encoded."""
    return config.features, config.attributes, config.item_item, config.policy.repeat


def _with_list_weight(config: RunConfig, weight: float) -> RunConfig:
    tasks = [
        task.model_copy(update={"list_weight": weight}) if task.kind.probability else task
        for task in config.tasks
    ]
    return config.model_copy(update={"tasks": tuple(tasks)})


def _outputs(heads: Mapping[str, HeadPredictions]) -> dict[str, np.ndarray]:
    """Name predictions, live and as lists began."""
    live = {task: of.prediction for task, of in heads.items()}
    return live | {f"list {task}": of.list_prediction for task, of in heads.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedBaseline:
    """One head's simple system."""

    predict: Predict
    note: str = ""
    calibrate: bool = True


FitBaseline = Callable[[TaskSpec, Night, LabelledRows], FittedBaseline]
"""(task, the night, the validation day's rows) -> a fitted system."""


def _calibrated(task: TaskSpec, known: LabelledRows, prediction: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Fit Platt's sigmoid, or a line, on the calibration day's predictions; apply it to later ones."""
    if not task.kind.probability:
        line = fit_affine(prediction, known.label, low=task.low, high=task.high, weight=known.weight)
        return line.apply(later)
    return fit_platt(_logit(prediction), known.label, known.weight).apply(_logit(later))


def _logit(probability: np.ndarray) -> np.ndarray:
    p = probability.clip(1e-6, 1 - 1e-6)
    found: np.ndarray = np.log(p) - np.log1p(-p)
    return found
