"""A head that came since the bundle it starts from: it learns the days that the other heads know already.

On those days every other label is hidden, and only what the new head has alone moves: its layers, its gates
(in `ple`, its experts), its column of the position bias. What heads share stays as it is. The shared layers
serve all heads, and a pass in which one loss alone speaks would pull them away from the others, on rows that
they have learned from before. On the new days all heads learn together.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys.batch import Batch
from recsys.model.embeddings import Tables
from recsys.model.ranker import Ranker
from training.balancing.weights import Fixed
from training.trainer.checkpoint import Checkpoint
from training.trainer.fit import fit
from training.trainer.group import ALONE, Group
from training.trainer.settings import FitSettings
from training.trainer.train_log import TrainLog
from training.trainer.watcher import Watcher


@dataclass(frozen=True, slots=True)
class FrozenTables:
    """Tables that are read and not trained."""

    tables: Tables

    @property
    def copied(self) -> bool:
        """Tell whether every rank has all rows."""
        return self.tables.copied

    @property
    def device(self) -> torch.device:
        """Tell where rows are looked up."""
        return self.tables.device

    def lookup(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rows of each table [U, D], without a gradient."""
        return {name: found.detach() for name, found in self.tables.lookup(rows).items()}

    def step(self, rows: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> None:
        """Change nothing."""

    def export(self) -> dict[str, Tensor]:
        """Return the tables' canonical weights."""
        return self.tables.export()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load the tables' canonical weights."""
        self.tables.load(weights)


def fit_alone(
    ranker: Ranker,
    tables: Tables,
    batches: Iterable[Batch],
    names: Sequence[str],
    settings: FitSettings,
    watchers: Sequence[Watcher] = (),
    start: Checkpoint | None = None,
    group: Group = ALONE,
) -> TrainLog:
    """Train some heads alone; every other head predicts afterwards what it did before.

    Args: names: the heads' tasks; settings: of a cold start, as these heads have learned nothing yet;
        start, group: as in `fit`.
    """
    tasks = [task for task in ranker.specs if task.name in names]
    balancer = Fixed({task.name: task.weight for task in tasks})
    with only_heads(ranker, names):
        alone = replace(settings, retrieval_task=None)
        return fit(ranker, FrozenTables(tables), batches, balancer, tasks, alone, watchers, start, group)


@contextmanager
def only_heads(ranker: Ranker, tasks: Sequence[str]) -> Iterator[None]:
    """Let some heads' own parameters learn, and nothing else, until the block ends."""
    before = ranker.position.weight.detach().clone()
    ranker.requires_grad_(requires_grad=False)
    own = [parameter for task in tasks for parameter in ranker.own_parameters(task).values()]
    for parameter in (*own, ranker.position.weight):
        parameter.requires_grad_()
    try:
        yield
    finally:
        ranker.requires_grad_()
        others = [k for k, task in enumerate(ranker.specs) if task.name not in tasks]
        with torch.no_grad():  # weight decay has touched them
            ranker.position.weight[:, others] = before[:, others]
