"""MMoE: shared experts, mixed by a gate per task."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.model.layers import Linears, TaskModules
from recsys.model.layout import Axes, Layout
from recsys.model.trunks.experts import Experts, mix
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
        experts_BEH, logits_BK = self.experts.beside(x_BI, *self._gates, self.learned)
        return dict(zip(self.tasks, mix(self._softmax(logits_BK), experts_BEH), strict=True))

    def first_layer(self) -> Linears:
        """Give the experts' first layers, then the gates."""
        gates_KI, gates_K = self._gates
        return Linears.cat([self.experts.first_layer(), Linears(gates_KI.t(), gates_K)])

    def above(self, first_BO: Tensor) -> dict[str, Tensor]:
        """Mix the experts' outputs per task, from what the first layers gave."""
        num_gates = self.experts.biases[-1].shape[0] * len(self.tasks)
        experts_BEH = self.experts.above(first_BO[:, :-num_gates])
        mixed = mix(self._softmax(first_BO[:, -num_gates:].to(experts_BEH.dtype)), experts_BEH)
        return dict(zip(self.tasks, mixed, strict=True))

    def with_upper_layers_in(self, dtype: torch.dtype) -> "MMoE":
        """Return a copy whose experts multiply in another type above their first layer; gates stay."""
        other = copy.deepcopy(self)
        other.experts = self.experts.with_upper_layers_in(dtype)
        return other

    def gate_weights(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Return each task's softmax over the experts, [B, E]."""
        gates_BGE = self._softmax(functional.linear(x_BI, *self._gates))
        return dict(zip(self.tasks, gates_BGE.unbind(dim=1), strict=True))

    @property
    def _gates(self) -> tuple[Tensor, Tensor]:
        """Join all gates to one layer, expert by expert: each is too narrow for a product of its own."""
        gates = [gate for gate in self.gates.values() if isinstance(gate, nn.Linear)]
        weight_EGI = torch.stack([g.weight for g in gates], dim=1)
        return weight_EGI.flatten(0, 1), torch.stack([g.bias for g in gates], dim=1).flatten()

    def _softmax(self, logits_BK: Tensor) -> Tensor:
        """Turn logits, expert by expert, into weights [B, G, E]."""
        # Over few numbers that lie together a softmax takes five times as long as over distant ones.
        num_rows, num_gates = logits_BK.shape[0], len(self.tasks)
        logits_EN = logits_BK.t().reshape(logits_BK.shape[1] // num_gates, num_gates * num_rows)
        gates_EGB = logits_EN.softmax(dim=0).view(logits_EN.shape[0], num_gates, num_rows)
        return gates_EGB.permute(2, 1, 0).contiguous()
