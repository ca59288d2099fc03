"""Several tensors as one message of bytes, and back."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 16
"""Bytes: where a tensor starts in a message, so that any type can be read in place."""


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Write tensors one after the other, uint8: the lengths of their first dimensions, then their values."""
    lengths = torch.tensor([t.shape[0] for t in tensors], dtype=torch.int64, device=tensors[0].device)
    pieces = []
    for tensor in (lengths, *tensors):
        piece = tensor.detach().contiguous().view(-1).view(torch.uint8)
        pieces += [piece, piece.new_zeros(-piece.numel() % ALIGNMENT)]
    return torch.cat(pieces)


def unpack(message: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Read what another rank packed. Args: like: own tensors of its types and further dimensions."""
    lengths = message[: 8 * len(like)].view(torch.int64).tolist()
    place, found = _room(8 * len(like)), []
    for length, own in zip(lengths, like, strict=True):
        shape = (length, *own.shape[1:])
        size = own.element_size() * math.prod(shape)
        found.append(message[place : place + size].view(own.dtype).view(shape))
        place += _room(size)
    return found


def _room(size: int) -> int:
    return size + -size % ALIGNMENT
