"""Small layers shared by towers, trunks and heads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MIN_LENGTH = 1e-12
"""What is shorter is divided by this: a row of zeros stays one."""


def mlp(num_in: int, widths: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Stack Linear + ReLU (+ dropout) layers."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(num_in, width), nn.ReLU(inplace=True)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        num_in = width
    return nn.Sequential(*layers)


def rest_of(network: nn.Sequential, first_BO: Tensor) -> Tensor:
    """Run a network from the output of its first layer on."""
    _, *layers = network
    for layer in layers:
        first_BO = layer(first_BO)
    return first_BO


def unit_length(x_BD: Tensor) -> Tensor:
    """Divide each row by its length: `functional.normalize` with half the passes backward.

    Takes several backward passes over one forward, no second derivative.
    """
    unit_BD: Tensor = _UnitLength.apply(x_BD)  # type: ignore[no-untyped-call]
    return unit_BD


class _UnitLength(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BD: Tensor) -> Tensor:
        length_B1 = torch.linalg.vector_norm(x_BD, dim=1, keepdim=True)
        # A length that is not divided by has no slope.
        ctx.constant = length_B1 < MIN_LENGTH
        length_B1 = length_B1.clamp_min_(MIN_LENGTH)
        unit_BD: Tensor = x_BD / length_B1
        ctx.save_for_backward(unit_BD, length_B1)
        return unit_BD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BD: Tensor) -> Tensor:
        unit_BD, length_B1 = ctx.saved_tensors
        along_B1 = (gradient_BD * unit_BD).sum(dim=1, keepdim=True).masked_fill_(ctx.constant, 0.0)
        across_BD: Tensor = torch.addcmul(gradient_BD, unit_BD, along_B1, value=-1)
        return across_BD.div_(length_B1)


@dataclass(frozen=True, slots=True)
class Linears:
    """Linear layers on one input, side by side: x @ weight + bias.

    Shape letters: I inputs, O outputs of all layers.
    """

    weight_IO: Tensor
    bias_O: Tensor

    @classmethod
    def of(cls, layers: Iterable[nn.Module]) -> "Linears":
        """Lay torch's linear layers side by side, in their order."""
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        return cls(
            torch.cat([layer.weight for layer in linear]).t(), torch.cat([layer.bias for layer in linear])
        )

    @classmethod
    def cat(cls, parts: Sequence["Linears"]) -> "Linears":
        """Lay layers beside others."""
        return cls(
            torch.cat([part.weight_IO for part in parts], dim=1), torch.cat([part.bias_O for part in parts])
        )


class TaskModules(nn.ModuleDict):
    """A module per task, under any task name: torch's ModuleDict refuses `apply`, `train` and `type`."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Add a module without the check of its name: it is read by key only."""
        self._modules[name] = module  # type: ignore[assignment]


class OrderedEmbedding(nn.Module):
    """Rows for ordered buckets: each is the previous row plus a learned step, which starts at 0.

    A bucket above all that training rows had reads as the highest they had. Rows of their own would keep
    their random start and add noise on the first day with an older history than any trained on.

    Shape letters: N buckets, D dimensions.
    """

    def __init__(self, num: int, dim: int) -> None:
        """Initialise all buckets equally."""
        super().__init__()
        self.steps_ND = nn.Parameter(torch.zeros(num, dim))

    def forward(self) -> Tensor:
        """Return the rows of all buckets, [N, D]."""
        rows_ND: Tensor = self.steps_ND.cumsum(dim=0)
        return rows_ND
