"""What an observer of a training sees."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim import AdamW

from recsys.model.embeddings import Tables
from recsys.model.ranker import Ranker


@dataclass(frozen=True, slots=True)
class Moment:
    """A step that is about to be made, for observers of the training."""

    step: int
    ranker: Ranker
    losses: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """Looked-up rows -> the batch's losses in float32; draws dropout anew at each call."""
    parameters: Sequence[Tensor]
    dense: AdamW
    numbers: Mapping[str, Tensor]
    """Table -> distinct numbers [U] of the batch."""
    rows: Mapping[str, Tensor]
    """Table -> the looked-up rows [U, D]."""
    tables: Tables


Observer = Callable[[Moment], None]
"""Looks at a moment and leaves everything as it was, the random state included."""
