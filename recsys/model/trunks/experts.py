"""Experts: equal networks with stacked weights, and the mixing of what they say.

Shape letters: B examples, I inputs, E experts, H expert output, G gates.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Experts(nn.Module):
    """Equal ReLU networks; weights are stored stacked, [E, in, out] per layer.

    The compute form is a loop over experts: on CPU one batched product of all measures up to 30 % slower in
    bfloat16 and level in float32, as its wide activations fall out of cache.
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

    def forward(self, x_BI: Tensor) -> list[Tensor]:
        """Give each expert's output [B, H]."""
        found = []
        # Taken apart at once: a slice per expert would fill a gradient of all experts' size for each.
        layers = [(w.unbind(), b.unbind()) for w, b in zip(self.weights, self.biases, strict=True)]
        for e in range(len(layers[0][0])):
            h = x_BI
            for weight, bias in layers:
                h = self.dropout(torch.addmm(bias[e], h, weight[e]).relu())
            found.append(h)
        return found


def mix(gates: Sequence[Tensor], experts: Sequence[Tensor]) -> list[Tensor]:
    """Weigh experts' outputs ([B, H] each) by each gate [B, E]: one h [B, H] per gate, in one product."""
    mixed_BGH = torch.stack(list(gates), dim=1) @ torch.stack(list(experts), dim=1)
    return list(mixed_BGH.unbind(dim=1))
