"""One optimiser step on one batch.

The graph is cut at the looked-up rows: one backward fills their gradients and the dense parameters', then the
tables step once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys.batch import Batch
from recsys.model.embeddings import Tables
from recsys.tasks import TaskSpec
from training.balancing import Balancer
from training.trainer.checkpoint import Checkpoint
from training.trainer.learner import Learner
from training.trainer.losses import all_losses
from training.trainer.moment import Moment
from training.trainer.optimizer import DenseOptimizer
from training.trainer.settings import FitSettings
from training.trainer.train_log import TrainLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepper:
    """All that changes in a training, and what changes it."""

    learner: Learner
    tables: Tables
    balancer: Balancer
    tasks: Sequence[TaskSpec]
    settings: FitSettings
    dense: DenseOptimizer

    def checkpoint(self, log: TrainLog) -> Checkpoint:
        """Give all that a fit goes on from; what cuts batches goes on by counting them."""
        parts = {
            "model": self.learner.state_dict(),
            "dense": self.dense.state(),
            "table": self.tables.export(),
        }
        tensors = {f"{part}.{name}": t for part, found in parts.items() for name, t in found.items()}
        tensors["random"] = torch.get_rng_state()
        if self.tables.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.tables.device)
        return Checkpoint(tensors=tensors, balancer=self.balancer.state(), log=log)

    def restore(self, checkpoint: Checkpoint) -> TrainLog:
        """Take a checkpoint of the same model; give the log that goes on from there."""
        self.learner.load_state_dict(checkpoint.part("model"))
        self.dense.load_state(checkpoint.part("dense"))
        self.tables.load(checkpoint.part("table"))
        self.balancer.load_state(checkpoint.balancer)
        torch.set_rng_state(checkpoint.tensors["random"])
        if self.tables.device.type == "cuda" and "random.cuda" in checkpoint.tensors:
            torch.cuda.set_rng_state(checkpoint.tensors["random.cuda"], self.tables.device)
        return replace(checkpoint.log, losses=list(checkpoint.log.losses))

    def moment(self, step: int, batch: Batch, rows: Mapping[str, Tensor]) -> Moment:
        """Describe the step that is about to be made."""
        exact = replace(self.settings, bf16=False)

        def losses(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return all_losses(self.learner, batch, self.tasks, exact, rows)[0]

        return Moment(
            step=step,
            batch=batch,
            learner=self.learner,
            losses=losses,
            parameters=self.dense.parameters,
            dense=self.dense.adamw,
            numbers=batch.rows,
            rows=rows,
            tables=self.tables,
        )

    def losses(self, batch: Batch, rows: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Give the batch's losses, each with its graph, and the logits without one."""
        losses, logits = all_losses(self.learner, batch, self.tasks, self.settings, rows)
        return losses, {task: values.detach() for task, values in logits.items()}

    def descend(self, losses: Mapping[str, Tensor], batch: Batch, rows: Mapping[str, Tensor]) -> None:
        """Backpropagate the losses as the balancer weighs them; step the dense parameters and the tables."""
        self.dense.clear()
        self.balancer.backward(losses, self.dense.parameters, list(rows.values()))
        self.dense.step()
        self.tables.step(batch.rows, rows)
