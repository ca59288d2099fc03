"""Cross-stitch: a network per task, their layers' outputs mixed by learned weights.

Shape letters: B examples, H a layer's width, K tasks.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.model.layers import Linears, TaskModules
from recsys.model.layout import Axes, Layout
from recsys.model.trunks.trunk import Trunk
from recsys.shapes import TrunkShape

OWN_SHARE = 0.9
"""Initial weight of a task's own activation; the other tasks share the rest."""


class CrossStitch(Trunk):
    """A network per task; after each layer a task continues with a learned mixture of all tasks' activations.

    Source: Misra et al., CVPR 2016.
    """

    def __init__(self, num_in: int, tasks: Sequence[str], shape: TrunkShape, dropout: float) -> None:
        """Build a network of the given layer widths for each task, and a stitch [K, K] per layer."""
        super().__init__(num_in, tasks, shape, dropout)
        self.layers = nn.ModuleList(
            TaskModules({t: nn.Linear(i, o) for t in tasks}) for i, o in pairwise([num_in, *shape.hidden])
        )
        self.stitches = nn.ParameterList(nn.Parameter(_fresh_stitch(len(self.tasks))) for _ in shape.hidden)
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def layouts(cls, x: Layout, tasks: Sequence[str], shape: TrunkShape) -> dict[str, Axes]:
        """List the dimensions of the parameters that depend on the inputs x or on the tasks, by name."""
        each = tuple((task, 1) for task in tasks)
        return {
            **{f"layers.0.{task}.weight": {1: x} for task in tasks},
            **{f"stitches.{layer}": {0: each, 1: each} for layer in range(len(shape.hidden))},
        }

    def forward(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Run layer by layer, all tasks together: h [B, H] per task."""
        return self._from_first([layer(x_BI) for layer in self._layer(0)])

    def first_layer(self) -> Linears:
        """Give the networks' first layers, task by task."""
        return Linears.of(self._layer(0))

    def above(self, first_BO: Tensor) -> dict[str, Tensor]:
        """Stitch the first layers' outputs, and go on layer by layer."""
        return self._from_first(first_BO.chunk(len(self.tasks), dim=1))

    def _from_first(self, outputs: Sequence[Tensor]) -> dict[str, Tensor]:
        streams = self._stitched(0, outputs)
        for place in range(1, len(self.layers)):
            outputs = [layer(x) for layer, x in zip(self._layer(place), streams, strict=True)]
            streams = self._stitched(place, outputs)
        return dict(zip(self.tasks, streams, strict=True))

    def _stitched(self, place: int, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Mix the tasks' activations after one layer."""
        own = [self.dropout(output.relu()) for output in outputs]
        return list(torch.einsum("kj,jbh->kbh", self.stitches[place], torch.stack(own)).unbind())

    def _layer(self, place: int) -> list[nn.Module]:
        layer = self.layers[place]
        assert isinstance(layer, nn.ModuleDict)
        return [layer[task] for task in self.tasks]


def _fresh_stitch(num_tasks: int) -> Tensor:
    if num_tasks == 1:
        return torch.ones(1, 1)
    rest = (1 - OWN_SHARE) / (num_tasks - 1)
    return torch.full((num_tasks, num_tasks), rest).fill_diagonal_(OWN_SHARE)
