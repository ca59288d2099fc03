"""Fit with averaged weights and keep the epoch that validation likes best.

The averages are exponential moving ones of the dense weights and the tables, as in Polyak averaging: a pass
over the weights per step takes the noise of the last steps out. The learning rate decays over all epochs, so
an early epoch that wins says that the budget was too long.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.batch import Batch
from recsys.config import TrunkConfig
from recsys.device import CPU, has_fast_bf16
from recsys.model.budget import match_budget, num_parameters
from recsys.model.embeddings import LocalTables
from recsys.model.trunks import TRUNKS
from recsys.tasks import TaskSpec
from training.balancing import build_balancer
from training.trainer.fit import fit
from training.trainer.learner import Learner
from training.trainer.moment import Progress
from training.trainer.settings import FitSettings
from training.trainer.watcher import Watcher


class Average:
    """The moving average of a model's weights and tables; `applied` puts it in their place for a while."""

    def __init__(self, model: nn.Module, tables: LocalTables, decay: float) -> None:
        """Start at the present weights; the first steps forget faster."""
        self.model, self.tables, self.decay, self.steps = model, tables, decay, 0
        self.held = [p.detach().clone() for p in model.parameters()]
        self.rows = {name: rows.clone() for name, rows in tables.weight.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the present weights."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for held, own in zip(self.held, self.model.parameters(), strict=True):
            held.lerp_(own, share)
        for name, rows in self.rows.items():
            rows.lerp_(self.tables.weight[name].detach(), share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Score with the averaged weights inside the block."""
        own, rows = [p.detach().clone() for p in self.model.parameters()], self.tables.weight
        self._put(self.held, self.rows)
        try:
            yield
        finally:
            self._put(own, rows)

    def state(self) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Copy the averaged weights."""
        return [h.clone() for h in self.held], {name: rows.clone() for name, rows in self.rows.items()}

    @torch.no_grad()
    def _put(self, dense: Sequence[Tensor], rows: dict[str, Tensor]) -> None:
        for own, value in zip(self.model.parameters(), dense, strict=True):
            own.copy_(value)
        self.tables.weight = rows

    def restore(self, state: tuple[list[Tensor], dict[str, Tensor]]) -> None:
        """Make a copied state the model's weights."""
        self._put(*state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long and how fast a row is trained; the same for every row of a set unless its note says so."""

    epochs: int
    learning_rate: float
    sparse_learning_rate: float
    weight_decay: float
    decay: float = 0.99
    """Of the moving average, per step."""
    warmup_steps: int = 50
    """At most; and at most a tenth of all."""

    def settings(self, steps_per_epoch: int) -> FitSettings:
        """Give the trainer's settings."""
        steps = self.epochs * steps_per_epoch
        return FitSettings(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            retrieval_task=None,
            temperature=1.0,
            total_steps=steps,
            warmup_steps=min(self.warmup_steps, steps // 10),
            bf16=has_fast_bf16(CPU),
        )


def trunks_of_one_size(shape: TrunkConfig, num_in: int, tasks: Sequence[str]) -> dict[str, TrunkConfig]:
    """Give every trunk at the number of parameters of `shape`, by name."""
    wanted = num_parameters(shape, num_in, tasks)
    return {n: match_budget(shape.model_copy(update={"name": n}), num_in, tasks, wanted) for n in TRUNKS}


def fit_best(
    model: nn.Module,
    tables: LocalTables,
    batches: Callable[[], Iterator[Batch]],
    steps_per_epoch: int,
    tasks: Sequence[TaskSpec],
    budget: Budget,
    loss: Callable[[], float] | None,
    stop_after: int | None = None,
) -> int:
    """Train for a number of epochs and leave the averaged weights of the best in the model, to be read.

    Args: batches: gives one epoch's; loss: of validation, lower is better, of the weights as they are when
    called; None keeps the last epoch. stop_after: make only so many of the epochs, at the rates of all: what
    a second training, on the validation rows too, needs to end where the first was best.
    Returns: the epoch kept, from 1.
    """
    kept = _Kept(model, Average(model, tables, budget.decay), steps_per_epoch, loss)
    learner: Learner = model  # type: ignore[assignment]
    stream = (batch for _ in range(stop_after or budget.epochs) for batch in batches())
    balancer = build_balancer("fixed", {t.name: t.weight for t in tasks})
    fit(learner, tables, stream, balancer, tasks, budget.settings(steps_per_epoch), [kept])
    kept.average.restore(kept.state or kept.average.state())
    model.eval()
    return kept.epoch or stop_after or budget.epochs


@dataclass(slots=True)
class _Kept(Watcher):
    """The best epoch so far."""

    model: nn.Module
    average: Average
    steps_per_epoch: int
    measure: Callable[[], float] | None
    loss: float = math.inf
    epoch: int = 0
    state: tuple[list[Tensor], dict[str, Tensor]] | None = None

    def after_step(self, progress: Progress) -> None:
        self.average.update()
        epoch, rest = divmod(self.average.steps, self.steps_per_epoch)
        if self.measure is None or rest:
            return
        self.model.eval()
        with self.average.applied():
            found = self.measure()
        self.model.train()
        if found < self.loss:
            self.loss, self.epoch, self.state = found, epoch, self.average.state()
