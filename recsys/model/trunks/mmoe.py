"""MMoE: shared experts, mixed by a gate per task."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.model.layers import TaskModules
from recsys.model.layout import Axes, Layout
from recsys.model.trunks.experts import Experts, mix
from recsys.model.trunks.relu_networks import in_product_type
from recsys.model.trunks.trunk import Trunk
from recsys.shapes import TrunkShape


class MMoE(Trunk):
    """Multi-gate mixture of experts: one softmax gate per task over shared experts.

    Source: Ma et al., KDD 2018.
    """

    def __init__(self, num_in: int, tasks: Sequence[str], shape: TrunkShape, dropout: float) -> None:
        """Build `num_experts` experts of the given layer widths and a linear gate per task."""
        super().__init__(num_in, tasks, shape, dropout)
        self.gates = TaskModules({t: nn.Linear(num_in, shape.num_experts) for t in tasks})
        self.experts = Experts(shape.num_experts, num_in, shape.hidden, dropout)

    @classmethod
    def layouts(cls, x: Layout, tasks: Sequence[str], shape: TrunkShape) -> dict[str, Axes]:
        """List the dimensions of the parameters that depend on the inputs x or on the tasks, by name."""
        del shape
        return {"experts.weights.0": {1: x}, **{f"gates.{task}.weight": {1: x} for task in tasks}}

    def forward(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Mix the experts' outputs per task: h [B, H]."""
        x_BI = in_product_type(x_BI)
        return dict(zip(self.tasks, mix(self._gates(x_BI), self.experts(x_BI)), strict=True))

    def gate_weights(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Return each task's softmax over the experts, [B, E]."""
        return dict(zip(self.tasks, self._gates(x_BI).unbind(dim=1), strict=True))

    def _gates(self, x_BI: Tensor) -> Tensor:
        """Compute all gates [B, G, E] in one product: each is too narrow for one of its own."""
        gates = [gate for gate in self.gates.values() if isinstance(gate, nn.Linear)]
        weight, bias = torch.cat([g.weight for g in gates]), torch.cat([g.bias for g in gates])
        logits = functional.linear(x_BI, weight, bias)
        return logits.view(x_BI.shape[0], len(gates), gates[0].out_features).softmax(dim=2)
