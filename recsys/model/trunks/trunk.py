"""Base class of all trunks: the constructor's arguments, and access to the gates."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.model.layers import Linears
from recsys.model.layout import Axes, Layout
from recsys.shapes import TrunkShape


class Trunk(nn.Module):
    """Map x [B, I] to one hidden vector [B, `num_out`] per task."""

    num_out: int
    tasks: tuple[str, ...]
    learned: tuple[slice, ...] | None = None
    """Ascending columns of x whose gradient is wanted, None: all. The others are data: a trunk may say 0 of
    them, and save their part of a product."""

    def __init__(self, num_in: int, tasks: Sequence[str], shape: TrunkShape, dropout: float) -> None:
        """Store the tasks and the widths."""
        super().__init__()
        del dropout
        self.num_in = num_in
        self.tasks = tuple(tasks)
        self.num_out = shape.hidden[-1]

    @classmethod
    def layouts(cls, x: Layout, tasks: Sequence[str], shape: TrunkShape) -> dict[str, Axes]:
        """List the dimensions of the parameters that depend on the inputs x or on the tasks, by name."""
        raise NotImplementedError

    def first_layer(self) -> Linears:
        """Give all linear layers that read x, side by side, in an order of the trunk's own.

        Of a trunk that does not say, x itself: then serving is right, but forms every column per candidate.
        """
        device = next((parameter.device for parameter in self.parameters()), None)
        return Linears(torch.eye(self.num_in, device=device), torch.zeros(self.num_in, device=device))

    def above(self, first_BO: Tensor) -> dict[str, Tensor]:
        """Map the outputs of `first_layer` to what `forward` gives for the same x; it may change them.

        For serving, which forms them in a cheaper way: no dropout, no gradient.
        """
        hidden: dict[str, Tensor] = self(first_BO)
        return hidden

    def with_upper_layers_in(self, dtype: torch.dtype) -> "Trunk | None":
        """Return a copy for serving that multiplies in another type above its first layer.

        Its `above` takes outputs of `first_layer` in that type, too, and gives float32. None: it has no such
        form.
        """
        del dtype
        return None

    def gate_weights(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Return per task the experts' weights [B, E], rows summing to 1; empty without gates.

        Columns are the same experts for every task, 0 where a task cannot reach one. With several levels of
        gates, these are those of the last.
        """
        del x_BI
        return {}

    def every_gate(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Return the weights [B, E] of every gate by name, those of all levels; 0 where it cannot reach."""
        return self.gate_weights(x_BI)
