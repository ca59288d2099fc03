"""How a fit is made: learning rates, precision, and the retrieval loss."""

from dataclasses import dataclass

import torch

READ_EVERY = 50
"""On a GPU, losses are read once in so many steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """Learning rates and the retrieval loss."""

    learning_rate: float
    weight_decay: float
    retrieval_task: str | None
    temperature: float
    total_steps: int
    warmup_steps: int = 0
    constant: bool = False
    """Keep the learning rate as it is: weights that are continued are near their optimum already."""
    bf16: bool = False
    """Multiply matrices in bfloat16 (weights, losses and optimisers stay in float32)."""
    next_item_weight: float = 0.0
    """Of the loss of events' next items beside the retrieval loss, where histories are read as sequences."""
    read_every: int = 1
    """Read the losses every so many steps: on a GPU each reading waits for all that it has still to do."""


def read_every(device: torch.device) -> int:
    """Give the steps from one reading of the losses to the next."""
    return 1 if device.type == "cpu" else READ_EVERY
