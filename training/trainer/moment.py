"""What a watcher of a fit sees: a step that is about to be made, and one that was made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from recsys.batch import Batch
from recsys.model.embeddings import Tables
from training.trainer.checkpoint import Checkpoint
from training.trainer.learner import Learner
from training.trainer.optimizer import DenseOptimizer


@dataclass(frozen=True, slots=True)
class Moment:
    """A step that is about to be made."""

    step: int
    batch: Batch
    learner: Learner
    losses: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """Looked-up rows -> the batch's losses in float32; draws dropout anew at each call."""
    parameters: Sequence[Tensor]
    dense: DenseOptimizer
    numbers: Mapping[str, Tensor]
    """Table -> distinct numbers [U] of the batch."""
    rows: Mapping[str, Tensor]
    """Table -> the looked-up rows [U, D]."""
    tables: Tables


@dataclass(frozen=True, slots=True)
class Progress:
    """A step that was made."""

    step: int
    batch: Batch
    logits: Mapping[str, Tensor]
    """Task -> what the weights before the step said of the batch, without a graph."""
    rows: int
    """How many rows were learned so far, those of this step included."""
    checkpoint: Callable[[], Checkpoint]
    """Gives all that the fit would go on from after this step."""
