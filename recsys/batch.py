"""The ranker's input: tensors, and for each embedding table the distinct rows of the step.

Every table is looked up once per step: a batch carries the sorted distinct numbers a step needs (`rows`) and,
per feature, where each example's row is among them. Candidate and history items share the table `item_id`, so
the optimiser of a row steps once however often the item occurs.

Shape letters: B examples, E history events of all of them, U distinct rows of a table, F numbers, T text
dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BagIndex:
    """Lists of B rows, concatenated: positions in a vocabulary's rows [T], where each starts [B]."""

    values: Tensor
    starts: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class NextItems:
    """What came after events of the sequences, on the day that is learned: P events, T distinct items."""

    index: dict[str, Tensor]
    """Item feature -> position in its vocabulary's rows [T]."""
    bags: dict[str, BagIndex]
    numbers_TF: Tensor
    text_TT: Tensor
    share_T: Tensor
    """Each item's share of the positives in the training stream."""
    item_T: Tensor
    """The item's row in the day's snapshot."""
    event_P: Tensor
    """The event of the sequences after which the item came."""
    place_P: Tensor
    """Which of the T items it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceIndex:
    """The sequences that B examples' histories are beginnings of, concatenated, oldest first; S events.

    A user's examples of one day read the same sequence up to different events, so it is encoded once.
    """

    item_S: Tensor
    """Position in the rows of the table `item_id`."""
    kind_S: Tensor
    minute_S: Tensor
    """When the event was received, in minutes from any instant."""
    count_C: Tensor
    """Events of each sequence."""
    event_E: Tensor
    """Which of the S events each event of a history is."""
    by_event_E: Tensor
    """The events of histories in the order of `event_E`."""
    next_items: NextItems | None = None
    """Present in training when retrieval is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryIndex:
    """Histories of B examples, concatenated, the newest event of each first; E events in all."""

    item_E: Tensor
    """Position in the rows of the table `item_id`."""
    kind_E: Tensor
    """Kind codes, from 1."""
    age_E: Tensor
    owner_E: Tensor
    """The example that an event belongs to."""
    start_B: Tensor
    """Where each example's events start."""
    by_item_E: Tensor
    """The events in the order of `item_E`, in which gradients of items are summed."""
    sequences: SequenceIndex | None = None
    """Present where the model reads histories as sequences."""

    @classmethod
    def empty(cls, num: int) -> "HistoryIndex":
        """Make `num` histories without events."""
        none = torch.zeros(0, dtype=torch.int64)
        start_B = torch.zeros(num, dtype=torch.int64)
        return cls(item_E=none, kind_E=none, age_E=none, owner_E=none, start_B=start_B, by_item_E=none)


@dataclass(frozen=True, slots=True, kw_only=True)
class Negatives:
    """What the retrieval loss needs: P positives of the batch, and M catalogue items drawn uniformly."""

    index: dict[str, Tensor]
    """Item feature -> position in its vocabulary's rows [M]."""
    numbers_MF: Tensor
    text_MT: Tensor
    share_M: Tensor
    """Each drawn item's share of the positives in the training stream."""
    share_B: Tensor
    """The same for the item of each example that is shown."""
    uniform: float
    """Expected number of times each item is drawn."""
    user_B: Tensor
    """User numbers: equal for examples of the same user."""
    item_M: Tensor
    item_B: Tensor
    """The item's row in the day's snapshot: equal rows are equal items."""
    positive_P: Tensor
    """The examples whose item was chosen, ascending. Listed when the batch is cut: to find them on a GPU, the
    processor must wait for it."""
    num_positives: int
    """Of the whole step, on all ranks."""
    bags: dict[str, BagIndex] = field(default_factory=dict)
    """Item feature with a list of ids -> positions in its vocabulary's rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPairs:
    """P pairs of examples of one list: of the first a task's label is 1, of the second 0."""

    positive_P: Tensor
    """Places of the examples in the batch."""
    negative_P: Tensor
    weight_P: Tensor
    """A list's pairs weigh together as much as its examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One step's inputs; a missing feature is a zero, a missing label is `observed` = False."""

    rows: dict[str, Tensor]
    """Vocabulary -> distinct numbers [U], ascending."""
    index: dict[str, Tensor]
    """Feature with one id -> position in its vocabulary's rows [B]."""
    item_text_UT: Tensor
    """Text of the distinct items of `rows["item_id"]`; zeros for numbers that are not one item."""
    user_numbers_BF: Tensor
    item_numbers_BF: Tensor
    context_numbers_BF: Tensor
    cross_numbers_BF: Tensor
    """The user's aggregates by columns of the candidate."""
    item_text_BT: Tensor
    history: HistoryIndex
    position_B: Tensor
    """1 = top of the page; 0 = unknown."""
    labels: dict[str, Tensor]
    """Task -> float [B]; meaningless where not observed."""
    observed: dict[str, Tensor]
    """Task -> bool [B]."""
    bags: dict[str, BagIndex] = field(default_factory=dict)
    """Feature with a list of ids -> positions in its vocabulary's rows."""
    negatives: Negatives | None = None
    """Present in training when retrieval is trained."""
    thinned_B: Tensor | None = None
    """Added to the logits of heads without a parent where negatives were drawn (`training.data.thinned`)."""
    pairs: dict[str, ListPairs] = field(default_factory=dict)
    """Task whose order inside lists is trained -> its pairs."""
    num_held: int = 0
    """So many examples, the last ones, are others once more with their user's state held: pairs alone read
    them, and nothing of theirs is observed."""

    @property
    def size(self) -> int:
        """Count the examples, with those that are there once more."""
        return self.position_B.shape[0]

    @property
    def num_shown(self) -> int:
        """Count the impressions that the examples stand for."""
        return self.size - self.num_held

    @property
    def device(self) -> torch.device:
        """Tell where the tensors are."""
        return self.position_B.device

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Batch":
        """Copy every tensor to a device; a batch that is there already is given back as it is.

        Args: non_blocking: do not wait for copies from pinned memory; the stream's later work does.
        """
        if self.device == device:
            return self
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin(self) -> "Batch":
        """Copy every tensor to page-locked memory, from which a GPU reads without the processor."""
        return self.map(Tensor.pin_memory)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Give the same batch with every tensor changed."""
        changed: Batch = _map(self, change)
        return changed


def move_together(value: T, device: torch.device) -> T:
    """Copy all tensors in dataclasses, dicts and tuples to a device, in one copy per type of number.

    A request has some twenty small tensors, and a copy to a GPU takes longer to start than to make.
    """
    if device.type == "cpu":
        return value
    by_type: dict[torch.dtype, list[Tensor]] = {}

    def collect(tensor: Tensor) -> Tensor:
        by_type.setdefault(tensor.dtype, []).append(tensor)
        return tensor

    _map(value, collect)
    moved = {dtype: iter(_moved(tensors, device)) for dtype, tensors in by_type.items()}
    changed: T = _map(value, lambda tensor: next(moved[tensor.dtype]))
    return changed


def read_together(logits: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Copy logits float32 [N] or [N, C] of every task to host memory, in one copy."""
    there = torch.cat([values.flatten() for values in logits.values()]).cpu()
    parts = there.split_with_sizes([values.numel() for values in logits.values()])
    return {
        task: part.view(values.shape).numpy()
        for (task, values), part in zip(logits.items(), parts, strict=True)
    }


def _moved(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copy tensors of one type to a device as one."""
    there = torch.cat([t.flatten() for t in tensors]).to(device)
    parts = there.split_with_sizes([t.numel() for t in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor in dataclasses, dicts, lists and tuples; leave everything else as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(_map(one, change) for one in value)
    if isinstance(value, dict):
        return {key: _map(one, change) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: _map(getattr(value, f.name), change) for f in fields(value)})
    return value
