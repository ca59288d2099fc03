"""Experts: networks of equal shape with stacked weights, and the mixing of their outputs.

Shape letters: B examples, I inputs, E experts, H expert output, G gates.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Experts(nn.Module):
    """ReLU networks of equal shape; weights are stored stacked, [E, in, out] per layer.

    The compute form is what measures faster on CPU: experts of one layer are one wide product, experts of
    several a loop, as the wide activations of a batched form fall out of cache.
    """

    def __init__(self, num: int, num_in: int, widths: Sequence[int], dropout: float) -> None:
        """Build `num` networks of the given layer widths."""
        super().__init__()
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(num, i, o)) for i, o in pairwise([num_in, *widths])
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(num, o)) for o in widths)
        self.dropout = nn.Dropout(dropout)
        for weight in self.weights:
            bound = (6.0 / weight.shape[1]) ** 0.5  # Kaiming, as ReLU follows
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x_BI: Tensor) -> Tensor:
        """Return the experts' outputs [B, E, H]."""
        return self._wide(x_BI) if len(self.weights) == 1 else self._loop(x_BI)

    def _wide(self, x_BI: Tensor) -> Tensor:
        weight_EIH, bias_EH = self.weights[0], self.biases[0]
        num, _, width = weight_EIH.shape
        flat_IH = weight_EIH.transpose(0, 1).reshape(-1, num * width)
        h: Tensor = self.dropout(torch.addmm(bias_EH.reshape(-1), x_BI, flat_IH).relu())
        return h.view(-1, num, width)

    def _loop(self, x_BI: Tensor) -> Tensor:
        found = []
        # Unbound at once: a slice per expert would allocate a gradient of all experts' size each.
        layers = [(w.unbind(), b.unbind()) for w, b in zip(self.weights, self.biases, strict=True)]
        for e in range(len(layers[0][0])):
            h = x_BI
            for weight, bias in layers:
                h = self.dropout(torch.addmm(bias[e], h, weight[e]).relu())
            found.append(h)
        return torch.stack(found, dim=1)


def mix(gates: Sequence[Tensor], experts_BEH: Tensor) -> list[Tensor]:
    """Weigh experts' outputs by each gate [B, E]: one h [B, H] per gate, in one product."""
    return list((torch.stack(list(gates), dim=1) @ experts_BEH).unbind(dim=1))
