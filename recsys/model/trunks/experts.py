"""Experts: networks of equal shape with stacked weights, and the mixing of their outputs.

Shape letters: B examples, I inputs, E experts, H expert output, G gates.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.model.trunks.relu_networks import relu_networks, relu_networks_beside


class Experts(nn.Module):
    """ReLU networks of equal shape; weights are stored stacked, [E, in, out] per layer."""

    def __init__(self, num: int, num_in: int, widths: Sequence[int], dropout: float) -> None:
        """Build `num` networks of the given layer widths."""
        super().__init__()
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(num, i, o)) for i, o in pairwise([num_in, *widths])
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(num, o)) for o in widths)
        self.dropout = dropout
        for weight in self.weights:
            bound = (6.0 / weight.shape[1]) ** 0.5  # Kaiming, as ReLU follows
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x_BI: Tensor) -> Tensor:
        """Return the experts' outputs [B, E, H]."""
        return relu_networks(x_BI, *self._parts)

    def beside(
        self, x_BI: Tensor, weight_KI: Tensor, bias_K: Tensor, learned: Sequence[slice] | None
    ) -> tuple[Tensor, Tensor]:
        """Return the experts' outputs [B, E, H], and those [B, K] of a linear layer on the same input.

        Args: learned: as `relu_networks_beside`.
        """
        return relu_networks_beside(x_BI, *self._parts, weight_KI, bias_K, learned)

    @property
    def _parts(self) -> tuple[list[Tensor], list[Tensor], float]:
        return list(self.weights), list(self.biases), self.dropout if self.training else 0.0


def mix(gates_BGE: Tensor, experts_BEH: Tensor) -> tuple[Tensor, ...]:
    """Weigh experts' outputs by each gate: one h [B, H] per gate, in one product."""
    return (gates_BGE @ experts_BEH).unbind(dim=1)
