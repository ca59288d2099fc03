"""Single task: one network per task, the reference for measuring what sharing does."""

from collections.abc import Sequence

from torch import Tensor, nn

from recsys.model.layers import Linears, TaskModules, mlp, rest_of
from recsys.model.layout import Axes, Layout
from recsys.model.trunks.trunk import Trunk
from recsys.shapes import TrunkShape


class SingleTask(Trunk):
    """Independent networks that share nothing above the embeddings."""

    def __init__(self, num_in: int, tasks: Sequence[str], shape: TrunkShape, dropout: float) -> None:
        """Build a network of the given layer widths for each task."""
        super().__init__(num_in, tasks, shape, dropout)
        self.bottoms = TaskModules({t: mlp(num_in, shape.hidden, dropout) for t in tasks})

    @classmethod
    def layouts(cls, x: Layout, tasks: Sequence[str], shape: TrunkShape) -> dict[str, Axes]:
        """List the dimensions of the parameters that depend on the inputs x or on the tasks, by name."""
        del shape
        return {f"bottoms.{task}.0.weight": {1: x} for task in tasks}

    def first_layer(self) -> Linears:
        """Give the networks' first layers, task by task."""
        return Linears.of(bottom[0] for bottom in self._networks)

    def above(self, first_BO: Tensor) -> dict[str, Tensor]:
        """Run each task's layers above the first."""
        firsts = first_BO.chunk(len(self.tasks), dim=1)
        found = (rest_of(bottom, first) for bottom, first in zip(self._networks, firsts, strict=True))
        return dict(zip(self.tasks, found, strict=True))

    @property
    def _networks(self) -> list[nn.Sequential]:
        return [bottom for bottom in self.bottoms.values() if isinstance(bottom, nn.Sequential)]

    def forward(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Map x to each task's own h [B, H]."""
        return {task: bottom(x_BI) for task, bottom in self.bottoms.items()}
