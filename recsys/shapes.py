"""What a model reads of a config: its heads, its trunk, its widths.

The model, its losses and `fit` know these protocols and no config, so they need torch and numpy alone. The
config's own classes satisfy them, and so does any value with the same fields.
"""

from collections.abc import Sequence
from typing import Protocol

from recsys.head_kinds import HeadKind

RETRIEVAL = "retrieval"
"""The name of the two towers' own loss beside the tasks'; no task can be called so."""


class HeadSpec(Protocol):
    """One head and its loss; `recsys.tasks.TaskSpec` says what the fields mean."""

    @property
    def name(self) -> str:
        """Name the task."""

    @property
    def kind(self) -> HeadKind:
        """Give what is known of the head's kind."""

    @property
    def loss_name(self) -> str:
        """Name the loss, one of the kind's."""

    @property
    def parent(self) -> str | None:
        """Name the earlier task whose label this one implies."""

    @property
    def transfer_from(self) -> str | None:
        """Name the earlier task whose hidden vector the head reads."""

    @property
    def hidden(self) -> Sequence[int] | None:
        """Give the widths of the head's layers; None: one layer of the model's."""

    @property
    def debias(self) -> str | None:
        """Say how missing labels are corrected for."""

    @property
    def learning_rate_scale(self) -> float:
        """Give the head's multiple of the learning rate."""

    @property
    def weight(self) -> float:
        """Give the weight of the loss."""

    @property
    def list_weight(self) -> float:
        """Give the weight of the order inside lists, beside the loss."""

    @property
    def low(self) -> float:
        """Give the lowest value."""

    @property
    def high(self) -> float:
        """Give the highest value."""

    @property
    def step(self) -> float:
        """Give the distance of two levels."""

    @property
    def num_levels(self) -> int:
        """Count the levels of an ordinal value."""

    @property
    def observation(self) -> str:
        """Name the logit of being observed."""


class TrunkShape(Protocol):
    """The shape of the shared part, as `[model.trunk]` has it."""

    @property
    def name(self) -> str:
        """Name an entry of `recsys.model.trunks.TRUNKS`."""

    @property
    def num_experts(self) -> int:
        """Count the experts that all tasks share."""

    @property
    def task_experts(self) -> int:
        """Count the experts of each task's own."""

    @property
    def hidden(self) -> Sequence[int]:
        """Give the widths of the layers."""


class HistoryShape(Protocol):
    """What reads a user's last events, as `[model.history]` has it."""

    @property
    def encoder(self) -> str:
        """Name `attention` or an entry of `recsys.model.sequence.ENCODERS`."""

    @property
    def dim(self) -> int:
        """Give the width of an event's state."""

    @property
    def num_layers(self) -> int:
        """Count the layers of a sequence."""

    @property
    def num_heads(self) -> int:
        """Count the heads of a layer."""

    @property
    def dropout(self) -> float:
        """Give the share of a state's numbers hidden in training."""


ATTENTION = "attention"
"""The history encoder that reads no sequence."""


def reads_sequences(shape: HistoryShape) -> bool:
    """Tell whether histories are read as sequences."""
    return shape.encoder != ATTENTION


class ModelShape(Protocol):
    """The shape of the ranker, as `[model]` has it."""

    @property
    def history(self) -> HistoryShape:
        """Give the shape of what reads a user's last events."""

    @property
    def trunk(self) -> TrunkShape:
        """Give the shape of the shared part."""

    @property
    def head_hidden(self) -> int:
        """Give the width of a head's one layer."""

    @property
    def tower_hidden(self) -> int:
        """Give the width of a tower's one layer."""

    @property
    def embedding_dim(self) -> int:
        """Give the width of the towers' outputs."""

    @property
    def attention_dim(self) -> int:
        """Give the width of the history's keys and values."""

    @property
    def dropout(self) -> float:
        """Give the share of activations hidden in training."""

    @property
    def position_bias(self) -> bool:
        """Say whether a logit per position is learned."""

    @property
    def ensemble_size(self) -> int:
        """Count the trunks with heads of their own."""
