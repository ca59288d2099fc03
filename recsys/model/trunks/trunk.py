"""What every trunk is: built from the same four arguments, and open about its gates."""

from collections.abc import Sequence

from torch import Tensor, nn

from recsys.config import TrunkConfig


class Trunk(nn.Module):
    """Map x [B, I] to one hidden vector [B, `num_out`] per task."""

    num_out: int
    tasks: tuple[str, ...]

    def __init__(self, num_in: int, tasks: Sequence[str], shape: TrunkConfig, dropout: float) -> None:
        """Keep the tasks and the width of what comes out."""
        super().__init__()
        del num_in, dropout
        self.tasks = tuple(tasks)
        self.num_out = shape.hidden[-1]

    def gate_weights(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Give per task how much each expert counts, [B, E], rows summing to 1; empty without gates.

        Columns are the same experts for every task, 0 where a task cannot reach one. With several levels of
        gates, these are those of the last.
        """
        del x_BI
        return {}
