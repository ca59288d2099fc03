"""Experts: networks of equal shape with stacked weights, and the mixing of their outputs.

Shape letters: B examples, I inputs, E experts, H expert output, G gates.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.model.layers import Linears
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

    def first_layer(self) -> Linears:
        """Give the experts' first layers side by side."""
        return Linears(self.weights[0].transpose(0, 1).flatten(1), self.biases[0].flatten())

    def above(self, first_BW: Tensor) -> Tensor:
        """Return the experts' outputs [B, E, H] from their first layers' [B, E · W], which it changes."""
        num, width = self.biases[0].shape
        h_EBH = first_BW.relu_().view(first_BW.shape[0], num, width).transpose(0, 1)
        h_EBH = h_EBH.to(self.weights[-1].dtype)
        for layer in range(1, len(self.weights)):  # a part of a ParameterList takes longer than its product
            h_EBH = torch.baddbmm(self.biases[layer].unsqueeze(1), h_EBH, self.weights[layer]).relu_()
        experts_BEH: Tensor = h_EBH.transpose(0, 1)
        return experts_BEH.float() if experts_BEH.dtype == torch.bfloat16 else experts_BEH

    def with_upper_layers_in(self, dtype: torch.dtype) -> "Experts":
        """Return a copy for serving whose layers above the first multiply in another type."""
        other = copy.deepcopy(self)
        for layer in range(1, len(self.weights)):
            other.weights[layer] = nn.Parameter(self.weights[layer].detach().to(dtype), requires_grad=False)
            other.biases[layer] = nn.Parameter(self.biases[layer].detach().to(dtype), requires_grad=False)
        return other

    @property
    def _parts(self) -> tuple[list[Tensor], list[Tensor], float]:
        return list(self.weights), list(self.biases), self.dropout if self.training else 0.0


def mix(gates_BGE: Tensor, experts_BEH: Tensor) -> tuple[Tensor, ...]:
    """Weigh experts' outputs by each gate: one h [B, H] per gate, in one product."""
    return (gates_BGE @ experts_BEH).unbind(dim=1)
