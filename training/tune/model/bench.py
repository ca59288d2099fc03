"""A config -> losses on its validation days: the calibration periods of a night, never the evaluated ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from features.days import Days
from features.encode import Encoder
from features.held import held_day
from recsys.config import RunConfig
from recsys.device import resolve_device
from recsys.errors import DataError
from recsys.metrics.columns import Lists
from recsys.metrics.list_auc import count_lists
from recsys.metrics.table import pooled_metric
from recsys.model.embeddings import Tables
from recsys.model.head_functions import predict
from recsys.model.ranker import Ranker
from recsys.shapes import RETRIEVAL
from recsys.tasks import TaskSpec
from training.data import Batcher, Cutting, EncodedRows, count_steps, encode_day, sizes_of, text_by_number
from training.evaluation.list_groups import list_group_of, lists_of_day
from training.fit_inputs import batch_settings
from training.night.plan import NightPlan, plan_night
from training.objective import retrieval_loss
from training.predict import moved, scoring_settings
from training.train import Prepared, prepare, retrieval_popularity, train
from training.trainer.logits import predict_logits
from training.trainer.moment import Moment
from training.trainer.prefetch import batches_ahead
from training.trainer.watcher import Watcher

_RETRIEVAL_BATCH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What weights reach on the validation days, by head; lower is better."""

    losses: dict[str, float]
    """By the primary metrics, which choose; of retrieval its own loss."""
    pooled: dict[str, float]
    """The same, with metrics of all rows in place of those inside lists; for comparison alone."""


OnRung = Callable[[int, Measured], None]
"""Sees (rung from 1, what was measured); may raise to end the training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Period:
    encoded: EncodedRows
    held: tuple[EncodedRows, np.ndarray] | None
    """The rows whose state is another one when it is held as their lists began, and their places."""
    lists: Lists
    batcher: Batcher
    retrieval: Batcher | None

    def logits(self, ranker: Ranker, tables: Tables) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Score the rows: with their own live state, and as their lists began."""

        def score(rows: EncodedRows) -> dict[str, np.ndarray]:
            return predict_logits(ranker, tables, self.batcher.batches(rows, np.random.default_rng(0)))

        live = score(self.encoded)
        if self.held is None:
            return live, live
        (moved, places), held = self.held, {name: values.copy() for name, values in live.items()}
        for name, values in score(moved).items():
            held[name][places] = values
        return live, held


class ModelBench:
    """Trains configs that share features on the same days, and measures them on the validation days.

    Losses, lower is better: a head's primary metric (1 minus it where higher is better), and the two towers'
    own loss on drawn negatives that are the same for every config. Only orders and distances of raw
    predictions count: calibration is fitted on these very days later.
    """

    def __init__(self, days: Days, config: RunConfig) -> None:
        """Plan the night of the last day.

        Raises: DataError when there are too few periods, or no head has labels to be measured by.
        """
        self.days, self.config = days, config
        self.plan: NightPlan = plan_night(days, config, None)
        self._known = {t.name: self._labels(t.name) for t in config.tasks}
        self.heads = tuple(t.name for t in config.tasks if self._measurable(t))
        if not self.heads:
            named = ", ".join(str(day) for day in days.dates_of(sorted(set(self.plan.calibrate.values()))))
            raise DataError(
                f"no head has labels on {named} to be measured by, of both kinds in one list where it is "
                "binary; take another --date"
            )

    @property
    def measures(self) -> tuple[str, ...]:
        """Name the losses."""
        return (*self.heads, RETRIEVAL) if self._has_retrieval else self.heads

    @cached_property
    def prepared(self) -> Prepared:
        """Fit the encoder and encode the training days, once for all configs."""
        return prepare(self.days, self.plan.train, self.config)

    def train(
        self,
        config: RunConfig,
        rungs: int = 1,
        on_rung: OnRung = lambda _rung, _measured: None,
        on_step: Callable[[], None] = lambda: None,
    ) -> Measured:
        """Train a config from its own seed and measure it; `on_rung` sees that on the way, end included.

        Raises: DivergedError, and whatever on_rung and on_step raise.
        """
        sizes = sizes_of(self.days, self.plan.train_periods)
        steps = count_steps(sizes.values(), Cutting.from_config(config), config.training.epochs)
        at = {max(1, steps * r // rungs): r for r in range(1, rungs)}

        trained = train(
            self.days,
            self.plan.train,
            config,
            None,
            config.training.epochs,
            watchers=[_Rungs(self, at, on_rung, on_step)],
            prepared=self.prepared,
        )
        device = resolve_device(config.training.device)
        found = self.measure(*moved(trained.ranker, trained.tables, device))
        on_rung(rungs, found)
        return found

    def measure(self, ranker: Ranker, tables: Tables) -> Measured:
        """Measure weights on the validation days; draws no random number that training draws.

        Ranker and tables are on one device: training's, while a training goes on.
        """
        logits = {i: period.logits(ranker, tables) for i, period in self._periods.items()}
        losses, pooled = {}, {}
        for task in self.config.tasks:
            if task.name in self.heads:
                both = logits[self.plan.calibrate[task.name]]
                losses[task.name] = self._loss(task, task.kind.metric, both)
                pooled[task.name] = self._loss(task, task.kind.batch_metric, both)
        if self._has_retrieval:
            losses[RETRIEVAL] = pooled[RETRIEVAL] = self._retrieval_loss(ranker, tables)
        return Measured(losses=losses, pooled=pooled)

    def _loss(self, task: TaskSpec, name: str, both: tuple[Mapping[str, np.ndarray], ...]) -> float:
        """Turn a metric of a head into a loss. Args: both: logits, live and as lists began."""
        period, metric = self._periods[self.plan.calibrate[task.name]], pooled_metric(name)
        label, weight = self._known[task.name], period.encoded.weight
        known = ~np.isnan(label)
        live, held = both
        values = predict((held if metric.in_lists else live)[task.name], task)
        lists = period.lists.take(known)
        value = metric.value(metric.check(label[known], values[known], weight[known], lists))
        return 1.0 - value if metric.higher_is_better else value

    @property
    def _has_retrieval(self) -> bool:
        task = self.config.retrieval_task
        return task is not None and task.name in self.heads and self.config.retrieval.weight > 0

    def _measurable(self, task: TaskSpec) -> bool:
        """Tell whether a head's primary metric is defined on its validation day."""
        label, period = self._known[task.name], self._periods[self.plan.calibrate[task.name]]
        known = label[~np.isnan(label)]
        if pooled_metric(task.kind.metric).in_lists:
            return count_lists(label, period.lists)[0] > 0
        return known.size > 1 and (not task.kind.probability or 0 < known.sum() < known.size)

    def _labels(self, task: str) -> np.ndarray:
        labels: np.ndarray = self._periods[self.plan.calibrate[task]].encoded.labels[task]
        return labels

    @cached_property
    def _periods(self) -> dict[int, _Period]:
        """Encode the validation periods with the encoder of the training days."""
        config, days = self.config, self.days
        encoder = Encoder.from_config(config, self.prepared.state)
        wanted = sorted(set(self.plan.calibrate.values()))
        group = list_group_of(days, {t: [i] for t, i in self.plan.calibrate.items()}, config.tasks)
        found = {}
        for i in wanted:
            text = text_by_number(encoder, days[i].table("items"))
            training = batch_settings(config, config.tasks)
            drawing = replace(training, batch_size=_RETRIEVAL_BATCH, id_dropout=0.0)
            lists = lists_of_day(days, i, config, group)
            with held_day(days, i, lists) as held:
                moved = (encode_day(encoder, held.days, i, config.tasks), held.rows) if held else None
            found[i] = _Period(
                encoded=encode_day(encoder, days, i, config.tasks),
                held=moved,
                lists=Lists.unplaced(lists.fill_null(-1)),
                batcher=Batcher(encoder, text, scoring_settings(config)),
                retrieval=Batcher(encoder, text, drawing) if config.retrieval_task else None,
            )
        return found

    @cached_property
    def _popularity(self) -> np.ndarray:
        return retrieval_popularity(
            self.days, list(self.plan.train_periods), self.config, self.prepared.state
        )

    @torch.no_grad()
    def _retrieval_loss(self, ranker: Ranker, tables: Tables) -> float:
        task = self.config.retrieval_task
        assert task is not None
        period = self._periods[self.plan.calibrate[task.name]]
        assert period.retrieval is not None
        share = self._popularity[period.encoded.items.ids[:, 0]]
        ranker.eval()
        total = torch.zeros((), dtype=torch.float64, device=tables.device)
        positives = 0
        batches = period.retrieval.batches(period.encoded, np.random.default_rng(0), share)
        for batch in batches_ahead(batches, tables.device):
            rows = tables.lookup(batch.rows)
            user = ranker.user_side(batch, rows)
            looked_up = ranker.looked_up(batch, rows, "item")
            item = ranker.item_side(looked_up, batch.item_numbers_BF, batch.item_text_BT)
            count = batch.negatives.num_positives if batch.negatives is not None else 0
            temperature = self.config.retrieval.temperature
            total += count * retrieval_loss(ranker, batch, rows, user, item, temperature).double()
            positives += count
        return float(total) / max(1, positives)


@dataclass(frozen=True, slots=True)
class _Rungs(Watcher):
    """Measures the weights on the way; the step's random numbers stay as they are."""

    bench: ModelBench
    at: Mapping[int, int]
    """Step -> rung."""
    on_rung: OnRung
    on_step: Callable[[], None]

    def before_step(self, moment: Moment) -> None:
        self.on_step()
        if moment.step in self.at:
            assert isinstance(moment.learner, Ranker)
            self.on_rung(self.at[moment.step], self.bench.measure(moment.learner, moment.tables))
            moment.learner.train()


def improvements(losses: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, float]:
    """Give by what share each loss is below the baseline's."""
    return {name: (baseline[name] - value) / max(baseline[name], 1e-12) for name, value in losses.items()}
