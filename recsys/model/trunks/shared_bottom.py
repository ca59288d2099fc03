"""Shared bottom: one network for all tasks."""

from collections.abc import Sequence

from torch import Tensor

from recsys.model.layers import Linears, mlp, rest_of
from recsys.model.layout import Axes, Layout
from recsys.model.trunks.trunk import Trunk
from recsys.shapes import TrunkShape


class SharedBottom(Trunk):
    """One network whose last layer every head reads. Source: Caruana, Machine Learning 1997."""

    def __init__(self, num_in: int, tasks: Sequence[str], shape: TrunkShape, dropout: float) -> None:
        """Build one network of the given layer widths."""
        super().__init__(num_in, tasks, shape, dropout)
        self.bottom = mlp(num_in, shape.hidden, dropout)

    @classmethod
    def layouts(cls, x: Layout, tasks: Sequence[str], shape: TrunkShape) -> dict[str, Axes]:
        """List the dimensions of the parameters that depend on the inputs x or on the tasks, by name."""
        del tasks, shape
        return {"bottom.0.weight": {1: x}}

    def first_layer(self) -> Linears:
        """Give the network's first layer."""
        return Linears.of([self.bottom[0]])

    def above(self, first_BO: Tensor) -> dict[str, Tensor]:
        """Run the layers above the first."""
        return dict.fromkeys(self.tasks, rest_of(self.bottom, first_BO))

    def forward(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Map x to the same h [B, H] for every task."""
        return dict.fromkeys(self.tasks, self.bottom(x_BI))
