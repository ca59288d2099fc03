"""Head kinds: what a task's output means, its loss, and how logits become predictions before calibration.

A child's logit is already the logit of the entire-space product p(child) = p(parent) · p(child | parent)
(ESMM: Ma et al., SIGIR 2018), so losses, calibration and metrics see one marginal per task.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.tasks import TaskSpec


@dataclass(frozen=True, slots=True)
class HeadFunctions:
    """How one head kind is trained and read: logits, label [B] -> loss [B]; logits -> prediction."""

    loss: Callable[[Tensor, Tensor, TaskSpec], Tensor]
    predict: Callable[[Tensor, TaskSpec], Tensor]


def _binary_loss(logits_B: Tensor, label_B: Tensor, task: TaskSpec) -> Tensor:
    del task
    return functional.binary_cross_entropy_with_logits(logits_B, label_B, reduction="none")


def _regression_loss(logits_B: Tensor, label_B: Tensor, task: TaskSpec) -> Tensor:
    # In units of a quarter of the range, so that weights mean the same for stars and for percentages.
    return ((_regression_predict(logits_B, task) - label_B) / ((task.high - task.low) / 4)).square()


def _regression_predict(logits_B: Tensor, task: TaskSpec) -> Tensor:
    return (task.low + task.high) / 2 + logits_B * (task.high - task.low) / 4


HEAD_KINDS: dict[str, HeadFunctions] = {
    "binary": HeadFunctions(_binary_loss, lambda logits_B, _task: logits_B.sigmoid()),
    "regression": HeadFunctions(_regression_loss, _regression_predict),
}


class Heads(nn.Module):
    """One small network per task on its own hidden vector, and the parent products."""

    def __init__(self, tasks: Sequence[TaskSpec], num_in: int, hidden: int) -> None:
        """Build the heads; parents stand before children in `tasks`."""
        super().__init__()
        self.specs = tuple(tasks)
        self.heads = nn.ModuleDict(
            {t.name: nn.Sequential(nn.Linear(num_in, hidden), nn.ReLU(), nn.Linear(hidden, 1)) for t in tasks}
        )

    def forward(self, hidden: Mapping[str, Tensor], bias: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map each task's h [B, H] (and additive bias [B]) to logits [B] of its marginal."""
        logits: dict[str, Tensor] = {}
        for task in self.specs:
            own = self.heads[task.name](hidden[task.name]).squeeze(-1) + bias[task.name]
            logits[task.name] = own if task.parent is None else product_logit(logits[task.parent], own)
        return logits


def product_logit(parent_B: Tensor, conditional_B: Tensor) -> Tensor:
    """Give logit(sigmoid(parent) · sigmoid(conditional)), exact at both ends.

    For p = 1 / ((1 + e^-a)(1 + e^-b)) the odds (1 - p) / p are e^-a + e^-b + e^-(a+b).
    """
    a_B, b_B = parent_B, conditional_B
    return -torch.logsumexp(torch.stack([-a_B, -b_B, -a_B - b_B]), dim=0)
