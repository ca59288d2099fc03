"""Trunks: one shared input -> one hidden vector per task.

Shape letters: B examples, I inputs, H hidden width of the last layer, E experts, K tasks.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.model.layers import mlp


class SharedBottom(nn.Module):
    """One network for all tasks (Caruana 1997)."""

    def __init__(
        self, num_in: int, tasks: Sequence[str], hidden: Sequence[int], num_experts: int, dropout: float
    ) -> None:
        """Build one network of the given layer widths."""
        super().__init__()
        del num_experts
        self.tasks = tuple(tasks)
        self.bottom = mlp(num_in, hidden, dropout)
        self.num_out = hidden[-1]

    def forward(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Map x to the same h [B, H] for every task."""
        h_BH = self.bottom(x_BI)
        return dict.fromkeys(self.tasks, h_BH)


class MMoE(nn.Module):
    """Multi-gate mixture of experts: shared experts, one softmax gate per task.

    Expert weights are stored stacked [E, in, out]. The compute form is a loop over experts: on CPU it
    measures faster than one batched product, whose wide activation falls out of cache.

    Source: Ma et al., KDD 2018.
    """

    def __init__(
        self, num_in: int, tasks: Sequence[str], hidden: Sequence[int], num_experts: int, dropout: float
    ) -> None:
        """Build `num_experts` experts of the given layer widths and a linear gate per task."""
        super().__init__()
        self.tasks = tuple(tasks)
        self.num_out = hidden[-1]
        widths = [num_in, *hidden]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(num_experts, i, o)) for i, o in pairwise(widths)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(num_experts, o)) for o in hidden)
        self.gates = nn.ModuleDict({t: nn.Linear(num_in, num_experts) for t in self.tasks})
        self.dropout = nn.Dropout(dropout)
        for weight in self.weights:
            bound = (6.0 / weight.shape[1]) ** 0.5  # Kaiming, as ReLU follows
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Mix the experts' outputs per task: h [B, H]."""
        experts = [self._expert(x_BI, e) for e in range(self.weights[0].shape[0])]
        mixed: dict[str, Tensor] = {}
        for task, gate in self.gates.items():
            weights_BE = gate(x_BI).softmax(dim=1)
            parts = [weights_BE[:, e : e + 1] * h_BH for e, h_BH in enumerate(experts)]
            mixed[task] = torch.stack(parts).sum(dim=0)
        return mixed

    def _expert(self, x_BI: Tensor, expert: int) -> Tensor:
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x_BI = self.dropout(torch.addmm(bias[expert], x_BI, weight[expert]).relu())
        return x_BI


TRUNKS: dict[str, type[SharedBottom] | type[MMoE]] = {"mmoe": MMoE, "shared_bottom": SharedBottom}


def build_trunk(
    name: str, num_in: int, tasks: Sequence[str], hidden: Sequence[int], num_experts: int, dropout: float
) -> SharedBottom | MMoE:
    """Build a trunk by name.

    Raises: ConfigError listing the known names.
    """
    if name not in TRUNKS:
        raise ConfigError(f"[model.trunk] name = {name!r} is unknown; known: {', '.join(sorted(TRUNKS))}")
    return TRUNKS[name](num_in, tasks, hidden, num_experts, dropout)
