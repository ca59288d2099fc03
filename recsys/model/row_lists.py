"""Lists of rows: weighted sums, products and softmax over lists of unequal length.

An element of a list is a row of a small table and a weight or a score. No tensor has a row per element: sums
and products read the table's rows in place, forward and backward.

Shape letters: B lists, E elements of all lists, U rows of a table, A dimensions.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class RowLists:
    """B lists of positions in a table's U rows, concatenated."""

    position_E: Tensor
    owner_E: Tensor
    """Each element's list, ascending."""
    start_B: Tensor
    """Where each list starts."""
    order_E: Tensor
    """The elements in the order of their positions: gradients of the rows are sums over lists too."""
    num_rows: int

    @property
    def num(self) -> int:
        """Count the lists."""
        return self.start_B.shape[0]

    @cached_property
    def transposed(self) -> tuple[Tensor, Tensor]:
        """Give the elements' lists [E] in the order of their positions, and where each row's start [U]."""
        each_U = torch.arange(self.num_rows, device=self.position_E.device)
        start_U = torch.searchsorted(self.position_E.index_select(0, self.order_E), each_U)
        return self.owner_E.index_select(0, self.order_E), start_U

    def elements(self, row: int) -> slice:
        """Say which elements are one list's."""
        return slice(*self._bounds[row : row + 2])

    @cached_property
    def _bounds(self) -> list[int]:
        """Read where lists start, and the last one ends; a single list needs no waiting for a GPU."""
        starts = [0] if self.num == 1 else self.start_B.tolist()
        return [*starts, self.position_E.shape[0]]


def list_sums(weight_E: Tensor, rows_UA: Tensor, lists: RowLists) -> Tensor:
    """Sum each list's rows by their weights, [B, A]."""
    sums_BA: Tensor = _Sums.apply(weight_E, rows_UA, lists)  # type: ignore[no-untyped-call]
    return sums_BA


def list_products(x_BA: Tensor, rows_UA: Tensor, lists: RowLists) -> Tensor:
    """Multiply each list's vector with the list's rows, [E]."""
    products_E: Tensor = _Products.apply(x_BA, rows_UA, lists)  # type: ignore[no-untyped-call]
    return products_E


def list_softmax(score_E: Tensor, lists: RowLists) -> Tensor:
    """Give softmax [E] over each list's elements and one more of score 0, whose share is left out."""
    weight_E: Tensor = _Softmax.apply(score_E, lists)  # type: ignore[no-untyped-call]
    return weight_E


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight_E: Tensor, rows_UA: Tensor, lists: RowLists) -> Tensor:
        ctx.save_for_backward(weight_E, rows_UA)
        ctx.lists = lists
        return _sum(weight_E, rows_UA, lists)

    @staticmethod
    def backward(ctx: Any, gradient_BA: Tensor) -> tuple[Tensor | None, ...]:
        weight_E, rows_UA = ctx.saved_tensors
        gradient_BA = gradient_BA.contiguous()
        return (
            _multiply(gradient_BA, rows_UA, ctx.lists),
            _spread(weight_E, gradient_BA, ctx.lists),
            None,
        )


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BA: Tensor, rows_UA: Tensor, lists: RowLists) -> Tensor:
        x_BA = x_BA.contiguous()
        ctx.save_for_backward(x_BA, rows_UA)
        ctx.lists = lists
        return _multiply(x_BA, rows_UA, lists)

    @staticmethod
    def backward(ctx: Any, gradient_E: Tensor) -> tuple[Tensor | None, ...]:
        x_BA, rows_UA = ctx.saved_tensors
        gradient_E = gradient_E.contiguous()
        return (
            _sum(gradient_E, rows_UA, ctx.lists),
            _spread(gradient_E, x_BA, ctx.lists),
            None,
        )


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, score_E: Tensor, lists: RowLists) -> Tensor:
        owner_E = lists.owner_E
        highest_B = score_E.new_zeros(lists.num).scatter_reduce_(0, owner_E, score_E, "amax")
        weight_E = score_E.sub(highest_B.index_select(0, owner_E)).exp_()
        total_B = highest_B.neg_().exp_().index_add_(0, owner_E, weight_E)
        weight_E.div_(total_B.index_select(0, owner_E))
        ctx.save_for_backward(weight_E)
        ctx.lists = lists
        return weight_E

    @staticmethod
    def backward(ctx: Any, gradient_E: Tensor) -> tuple[Tensor | None, ...]:
        (weight_E,) = ctx.saved_tensors
        owner_E = ctx.lists.owner_E
        moved_E = weight_E * gradient_E
        mean_B = moved_E.new_zeros(ctx.lists.num).index_add_(0, owner_E, moved_E)
        return moved_E.addcmul_(weight_E, mean_B.index_select(0, owner_E), value=-1), None


def _sum(weight_E: Tensor, rows_UA: Tensor, lists: RowLists) -> Tensor:
    return functional.embedding_bag(
        lists.position_E, rows_UA, lists.start_B, mode="sum", per_sample_weights=weight_E
    )


def _multiply(x_BA: Tensor, rows_UA: Tensor, lists: RowLists) -> Tensor:
    # A bag sum's gradient by the weights is this product, and its kernel copies neither vectors nor rows.
    products_E: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        x_BA, rows_UA, lists.position_E, lists.start_B, lists.owner_E, 0
    )
    return products_E


def _spread(weight_E: Tensor, x_BA: Tensor, lists: RowLists) -> Tensor:
    """Add each list's vector, by the elements' weights, to the elements' rows: [U, A]."""
    owner_E, start_U = lists.transposed
    weight_E = weight_E.index_select(0, lists.order_E)
    return functional.embedding_bag(owner_E, x_BA, start_U, mode="sum", per_sample_weights=weight_E)
