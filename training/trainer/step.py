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
from recsys.shapes import HeadSpec
from training.balancing import Balancer
from training.trainer.checkpoint import Checkpoint
from training.trainer.group import ALONE, Group
from training.trainer.learner import Learner
from training.trainer.lookup import Lookup, look_up
from training.trainer.losses import all_losses
from training.trainer.moment import Moment
from training.trainer.optimizer import DenseOptimizer
from training.trainer.settings import FitSettings
from training.trainer.train_log import TrainLog
from training.trainer.whole_batch import whole_batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepper:
    """All that changes in a training, and what changes it."""

    learner: Learner
    tables: Tables
    balancer: Balancer
    tasks: Sequence[HeadSpec]
    settings: FitSettings
    dense: DenseOptimizer
    group: Group = ALONE

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
        if self.group.rank == 0:
            torch.set_rng_state(checkpoint.tensors["random"])
        else:  # it is rank 0's; each rank has dropout masks of its own
            torch.manual_seed(self.group.rank + self.group.size * checkpoint.log.steps)
        if self.tables.device.type == "cuda" and "random.cuda" in checkpoint.tensors:
            torch.cuda.set_rng_state(checkpoint.tensors["random.cuda"], self.tables.device)
        return replace(checkpoint.log, losses=list(checkpoint.log.losses))

    def look_up(self, batch: Batch) -> Lookup:
        """Look up the rows of a batch."""
        whole = whole_batch(batch, self.tasks, self.group, union=self.tables.copied)
        return look_up(self.tables, batch.rows, whole)

    def moment(self, step: int, batch: Batch, found: Lookup) -> Moment:
        """Describe the step that is about to be made."""
        exact = replace(self.settings, bf16=False)

        def losses(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return all_losses(self.learner, batch, self.tasks, exact, rows, found.whole)[0]

        return Moment(
            step=step,
            batch=batch,
            learner=self.learner,
            losses=losses,
            parameters=self.dense.parameters,
            dense=self.dense,
            numbers=batch.rows,
            rows=found.rows,
            tables=self.tables,
        )

    def losses(self, batch: Batch, found: Lookup) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Give the batch's losses, each with its graph, and the logits without one."""
        losses, logits = all_losses(self.learner, batch, self.tasks, self.settings, found.rows, found.whole)
        return losses, {task: values.detach() for task, values in logits.items()}

    def descend(self, losses: Mapping[str, Tensor], found: Lookup) -> None:
        """Backpropagate the losses as the balancer weighs them; step the dense parameters and the tables."""
        self.dense.clear()
        # Sharded tables add up the ranks' gradients of a row themselves.
        boundary = list(found.leaves.values()) if self.tables.copied else []
        if self.balancer.backward(losses, self.dense.parameters, boundary, self.group).own:
            rows = [leaf.grad for leaf in boundary if leaf.grad is not None]
            self.group.sum_([*self.dense.gradients, *rows])
        self.dense.step()
        self.tables.step(found.whole.numbers, found.leaves)
