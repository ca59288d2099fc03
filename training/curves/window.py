"""How well each task is predicted on the last batches, by weights that had not learned them yet."""

import math
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from recsys.batch import Batch
from recsys.metrics.table import pooled_metric
from recsys.resolve import resolve
from recsys.tasks import TaskSpec
from training.trainer.group import ALONE, Group

MAX_ROWS = 1 << 18
"""Of the last batches so many rows are kept, of each rank."""


class Window:
    """Labels and logits of the last batches; they stay on the device until they are measured."""

    def __init__(self, tasks: Sequence[TaskSpec], group: Group = ALONE) -> None:
        """Start empty."""
        self.tasks, self.group = tasks, group
        self._kept: deque[tuple[int, dict[str, tuple[Tensor, Tensor, Tensor]]]] = deque()
        self._rows = 0

    def add(self, batch: Batch, logits: Mapping[str, Tensor]) -> None:
        """Keep a batch's labels and logits."""
        names = [task.name for task in self.tasks]
        kept = {name: (batch.labels[name], batch.observed[name], logits[name]) for name in names}
        self._kept.append((batch.size, kept))
        self._rows += batch.size
        while self._rows > MAX_ROWS and len(self._kept) > 1:
            self._rows -= self._kept.popleft()[0]

    def values(self) -> dict[str, float]:
        """Measure the rows of all ranks by the heads' batch metrics (`auc_train/click`), and forget them.

        A task without labels is left out; so is the AUC of one class. Every row counts once: the weights of
        sampled negatives correct probabilities, and an order needs none.
        """
        kept, self._kept, self._rows = self._kept, deque(), 0
        found = {}
        for task in self.tasks if kept else ():
            pairs_N2 = torch.cat([_pairs(task, size, *tensors[task.name]) for size, tensors in kept])
            label, prediction = torch.cat(self.group.parts(pairs_N2)).cpu().double().numpy().T
            if not label.size:
                continue
            metric = pooled_metric(task.kind.batch_metric)
            rows = metric.check(label, prediction, np.ones(label.size))
            value = metric.value(rows)
            if math.isfinite(value):
                found[f"{task.kind.batch_metric}_train/{task.name}"] = value
        return found


def _pairs(task: TaskSpec, size: int, label: Tensor, observed: Tensor, logits: Tensor) -> Tensor:
    """Give (label, prediction) of the observed rows [N, 2]; for an order the logit, which has fewer ties.

    The logits of several members are averaged, as serving does. What is not finite ends the fit elsewhere.
    """
    members = max(1, logits.shape[0] // max(1, size))
    values = logits.reshape(members, size, *logits.shape[1:]).mean(dim=0)
    if pooled_metric(task.kind.batch_metric).reads != "order":
        values = resolve(task.kind.predict)(values, task)
    seen = observed & values.isfinite()
    return torch.stack([label[seen].float(), values[seen].float()], dim=1)
