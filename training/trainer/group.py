"""The processes that make one step together: what they add up, and what they show each other.

A loss of a rank is its share of the global one: sum over its own examples / count over all examples. So
gradients of all ranks are added, never averaged, and N processes make the steps of one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from training.trainer.message import pack, unpack


class Group:
    """One process alone; a subclass joins several. All ranks make the same calls in the same order."""

    rank = 0
    size = 1

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type, of equal shapes on every rank, by their sums, equal to the bit."""

    def exchange(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Give every rank's tensors, in the order of ranks; they may differ in the first dimension."""
        if self.size == 1:
            return [[t.detach() for t in tensors]]
        own = pack(tensors)
        return [unpack(said, tensors) for said in self._every(own)]

    def parts(self, x: Tensor) -> list[Tensor]:
        """Give every rank's tensor, in the order of ranks; they may differ in the first dimension."""
        return [of_rank[0] for of_rank in self.exchange([x])]

    def total(self, x: Tensor) -> Tensor:
        """Give the sum of every rank's tensor, without a gradient."""
        found = x.detach().clone()
        self.sum_([found])
        return found

    def _every(self, message: Tensor) -> list[Tensor]:
        """Give every rank's bytes."""
        return [message]


ALONE = Group()


class DistributedGroup(Group):
    """The default process group of torch.distributed: gloo on CPU, NCCL on CUDA."""

    def __init__(self) -> None:
        """Read rank and size of the group that this process has joined."""
        from torch import distributed

        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Add all tensors in one message."""
        from torch import distributed

        if not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        distributed.all_reduce(flat)
        place = 0
        for tensor in tensors:
            tensor.copy_(flat[place : place + tensor.numel()].view_as(tensor))
            place += tensor.numel()

    def _every(self, message: Tensor) -> list[Tensor]:
        """Pad to the longest rank's length, then cut."""
        from torch import distributed

        counts = [torch.zeros(1, dtype=torch.int64, device=message.device) for _ in range(self.size)]
        distributed.all_gather(counts, torch.tensor([message.numel()], device=message.device))
        sizes = [int(c) for c in counts]
        padded = message.new_zeros(max(sizes))
        padded[: message.numel()] = message
        found = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(found, padded)
        return [part[:n] for part, n in zip(found, sizes, strict=True)]


def gathered(x: Tensor, group: Group) -> Tensor:
    """Concatenate every rank's rows; the gradient of a row goes back to the rank that gave it."""
    if group.size == 1:
        return x
    made: Tensor = _Gathered.apply(x, group)  # type: ignore[no-untyped-call]
    return made


class _Gathered(Function):
    """All-gather whose backward adds up what every rank says of a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        parts = group.parts(x)
        ctx.group, ctx.sizes = group, [len(p) for p in parts]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        group, sizes = ctx.group, ctx.sizes
        every = group.total(gradient)
        return every.split(sizes)[group.rank], None
