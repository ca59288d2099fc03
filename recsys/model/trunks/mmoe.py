"""MMoE: shared experts, mixed by a gate per task."""

from collections.abc import Sequence

from torch import Tensor, nn

from recsys.config import TrunkConfig
from recsys.model.layers import TaskModules
from recsys.model.trunks.experts import Experts, mix
from recsys.model.trunks.trunk import Trunk


class MMoE(Trunk):
    """Multi-gate mixture of experts: one softmax gate per task over shared experts.

    Source: Ma et al., KDD 2018.
    """

    def __init__(self, num_in: int, tasks: Sequence[str], shape: TrunkConfig, dropout: float) -> None:
        """Build `num_experts` experts of the given layer widths and a linear gate per task."""
        super().__init__(num_in, tasks, shape, dropout)
        self.gates = TaskModules({t: nn.Linear(num_in, shape.num_experts) for t in tasks})
        self.experts = Experts(shape.num_experts, num_in, shape.hidden, dropout)

    def forward(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Mix the experts' outputs per task: h [B, H]."""
        gates = self.gate_weights(x_BI)
        return dict(zip(gates, mix(list(gates.values()), self.experts(x_BI)), strict=True))

    def gate_weights(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Return each task's softmax over the experts, [B, E]."""
        return {task: gate(x_BI).softmax(dim=1) for task, gate in self.gates.items()}
