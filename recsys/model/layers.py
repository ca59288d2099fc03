"""Small layers shared by towers, trunks and heads."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def mlp(num_in: int, widths: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Stack Linear + ReLU (+ dropout) layers."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(num_in, width), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        num_in = width
    return nn.Sequential(*layers)


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
