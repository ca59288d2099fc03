"""Ranks of one host that add up and exchange in memory which they share.

A message is written into the rank's slot; the ranks meet; everybody reads. A rank has two slots and takes
turns: before it writes the first again, it has met the others once more, so they have read it. Sums are made
in the order of ranks by whoever makes them, so they are equal to the bit everywhere.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from training.trainer.group import Group
from training.trainer.shared_memory import Plan, SharedMemory

SHARED_FROM = 1 << 16
"""Bytes from which more than two ranks each add up a slice of a sum; below, each adds up all of it."""
_HEADER = 16
"""Bytes before a message: its kind, and how long it is in all."""
_SUM, _BYTES = 1, 2


class SharedGroup(Group):
    """All ranks of a fit, on one host, on the CPU."""

    def __init__(self, path: Path, plan: Plan, rank: int) -> None:
        """Join the others. Raises: RankError when they do not come."""
        self.rank, self.size = rank, plan.ranks
        self.memory = SharedMemory(path, plan, rank)
        self.turn = 0
        self.room = plan.slot - _HEADER
        self._heads = [
            [self.memory.slot(turn, r)[:_HEADER].view(torch.int64) for r in range(self.size)]
            for turn in (0, 1)
        ]
        self._slots = [[self.memory.slot(turn, r)[_HEADER:] for r in range(self.size)] for turn in (0, 1)]
        self._result = self.memory.slot(0, self.size)[_HEADER:]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Add up in as few messages as have the room."""
        flat = [t.view(-1) if t.is_contiguous() else t.reshape(-1).clone() for t in tensors]
        for message in _messages(flat, self.room):
            self._sum(message)
        for tensor, summed in zip(tensors, flat, strict=True):
            if not tensor.is_contiguous():
                tensor.copy_(summed.view(tensor.shape))

    def _sum(self, pieces: Sequence[Tensor]) -> None:
        """Replace some flat tensors of one type, which one slot has room for, by their sums."""
        kind, length = pieces[0].dtype, sum(p.numel() for p in pieces)
        size = length * kind.itemsize
        slots = [slot[:size].view(kind) for slot in self._slots[self.turn]]
        sizes = [p.numel() for p in pieces]
        for piece, place in zip(pieces, torch.split(slots[self.rank], sizes), strict=True):
            place.copy_(piece)
        self._meet(_SUM, size)
        if self.size == 2 or size < SHARED_FROM:
            every = zip(pieces, *(torch.split(slot, sizes) for slot in slots), strict=True)
            for piece, first, *others in every:
                _add(first, others, piece)
            return
        result = self._result[:size].view(kind)
        own = slice(length * self.rank // self.size, length * (self.rank + 1) // self.size)
        _add(slots[0][own], [slot[own] for slot in slots[1:]], result[own])
        self.memory.meet()
        for piece, place in zip(pieces, torch.split(result, sizes), strict=True):
            piece.copy_(place)

    def _every(self, message: Tensor) -> list[Tensor]:
        """Exchange bytes, as much at a time as a slot has room for."""
        found: list[Tensor] = []
        done = 0
        while not found or done < max(f.numel() for f in found):
            own = message[done : done + self.room]
            self._slots[self.turn][self.rank][: own.numel()].copy_(own)
            heads = self._meet(_BYTES, message.numel())
            found = found or [message.new_empty(n) for n in heads]
            slots = self._slots[1 - self.turn]
            for r, (whole, slot) in enumerate(zip(found, slots, strict=True)):
                part = whole[done : done + self.room]
                part.copy_(own if r == self.rank else slot[: part.numel()])
            done += self.room
        return found

    def _meet(self, kind: int, size: int) -> list[int]:
        """Wait for all ranks' messages; take the other slot for the next one; give their lengths."""
        heads, self.turn = self._heads[self.turn], 1 - self.turn
        heads[self.rank][0], heads[self.rank][1] = kind, size
        self.memory.meet()
        said = [head.tolist() for head in heads]
        alike = all(k == kind and (kind == _BYTES or n == size) for k, n in said)
        assert alike, f"ranks make different calls (kind, bytes): {said}"
        return [n for _, n in said]


def _messages(flat: Sequence[Tensor], room: int) -> Iterator[list[Tensor]]:
    """Fill messages with flat tensors in their order; one that has no room is cut."""
    pieces: list[Tensor] = []
    left = room
    for tensor in flat:
        rest = tensor
        while rest.numel():
            piece = rest[: left // rest.element_size()]
            if piece.numel():
                pieces.append(piece)
                left -= piece.numel() * piece.element_size()
            rest = rest[piece.numel() :]
            if rest.numel():
                yield pieces
                pieces, left = [], room
    if pieces:
        yield pieces


def _add(first: Tensor, others: Sequence[Tensor], into: Tensor) -> None:
    """Add up in this order."""
    torch.add(first, others[0], out=into)
    for other in others[1:]:
        into.add_(other)
