"""What the trainer asks of a model."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from recsys.batch import Batch
from recsys.model.ranker import ItemSide, UserSide


class Learner(Protocol):
    """What `fit` needs of a model: the ranker, or one of a table without users and items."""

    def train(self) -> Any:
        """Turn dropout on."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Give the dense parameters."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Give them with their names."""

    def state_dict(self) -> dict[str, Tensor]:
        """Give all that a forward pass reads, by name."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> Any:
        """Take what `state_dict` gave."""

    def parameter_groups(self) -> dict[float, list[nn.Parameter]]:
        """Group them by their multiple of the learning rate."""

    def __call__(
        self, batch: Batch, rows: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], UserSide | None, ItemSide | None]:
        """Give logits per task and, where there is retrieval to learn, both sides."""
