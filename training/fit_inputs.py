"""All that a fit reads beside weights and encoded days, and the fit itself: for one process or many."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from torch import Tensor

from features.encode import Encoder
from recsys.config import RunConfig
from recsys.encoding import EncoderState
from recsys.model.embeddings import Tables
from recsys.model.ranker import Ranker
from recsys.shapes import RETRIEVAL, reads_sequences
from recsys.tasks import TaskSpec
from training.balancing import Balancer, build_balancer
from training.data import Batcher, BatchSettings, BatchStream, Cutting, EncodedDay, count_steps
from training.data.chunks import DaySize
from training.new_parts import NewParts, fit_new_parts
from training.trainer.checkpoint import Checkpoint
from training.trainer.fit import fit
from training.trainer.group import ALONE, Group
from training.trainer.settings import FitSettings
from training.trainer.train_log import TrainLog
from training.trainer.watcher import Watcher


@dataclass(frozen=True, slots=True, kw_only=True)
class FitInputs:
    """What stays as it is while weights are trained."""

    config: RunConfig
    tasks: Sequence[TaskSpec]
    state: EncoderState
    text: Tensor
    """Text vectors [V, T] by item number."""
    popularity: np.ndarray | None
    """Share of positives by item number; None where retrieval is not trained."""
    days: Mapping[int, DaySize]
    """By place, in the order of training."""
    epochs: int
    settings: FitSettings
    read_day: Callable[[int], EncodedDay]
    limit: int | None = None
    """End after so many steps; None: at the end of the days."""
    alone: NewParts = field(default_factory=NewParts)
    """What came since the weights, where nothing else moves. Empty: all is learned."""
    examination: tuple[float, ...] = (1.0,)
    """How likely each position is looked at, where order inside lists is learned without a position bias."""

    @property
    def num_steps(self) -> int:
        """Count the steps, without the limit."""
        return count_steps(self.days.values(), Cutting.from_config(self.config), self.epochs)

    def stream(self, group: Group = ALONE) -> BatchStream:
        """Cut the days into batches, or into a rank's slices of them."""
        settings = batch_settings(self.config, self.tasks)
        settings = replace(settings, examination=self.examination, rank=group.rank, ranks=group.size)
        return BatchStream(
            days=self.days,
            read_day=self.read_day,
            batcher=Batcher(Encoder.from_config(self.config, self.state), self.text, settings),
            cutting=Cutting.from_config(self.config),
            epochs=self.epochs,
            popularity=self.popularity,
        )

    def fit(
        self,
        ranker: Ranker,
        tables: Tables,
        watchers: Sequence[Watcher] = (),
        start: Checkpoint | None = None,
        group: Group = ALONE,
    ) -> TrainLog:
        """Train the weights given, or go on from a checkpoint."""
        batches = islice(self.stream(group).batches(start.log.steps if start else 0), self.limit)
        if self.alone:
            weights, settings = loss_weights(self.config, self.tasks), self.settings
            return fit_new_parts(
                ranker, tables, batches, self.alone, weights, settings, watchers, start, group
            )
        balancer = balancer_of(self.config, self.tasks)
        return fit(ranker, tables, batches, balancer, self.tasks, self.settings, watchers, start, group)


def loss_weights(config: RunConfig, tasks: Sequence[TaskSpec]) -> dict[str, float]:
    """Give the weight of every loss: the heads' and the retrieval's."""
    return {t.name: t.weight for t in tasks} | {RETRIEVAL: config.retrieval.weight}


def balancer_of(config: RunConfig, tasks: Sequence[TaskSpec]) -> Balancer:
    """Build the config's balancer for these heads' losses and the retrieval's."""
    training = config.training
    return build_balancer(training.balancing, loss_weights(config, tasks), training.balancer)


def batch_settings(config: RunConfig, tasks: Sequence[TaskSpec]) -> BatchSettings:
    """Say how training batches are cut."""
    return BatchSettings(
        batch_size=config.training.batch_size,
        history_length=config.features.history_length,
        lag_ms=1000 * config.features.ingestion_lag,
        id_dropout=config.model.id_dropout,
        num_uniform=config.retrieval.num_uniform,
        tasks=tuple(t.name for t in tasks),
        retrieval_task=config.retrieval_task.name if config.retrieval_task else None,
        list_tasks=tuple(t.name for t in tasks if t.list_weight),
        sequences=reads_sequences(config.model.history),
        period=config.period,
        next_kind=config.retrieval_task.feedback if config.retrieval_task else None,
    )
