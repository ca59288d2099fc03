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
    """B lists of positions in a table's rows, concatenated: positions [E], where each list starts [B]."""

    position_E: Tensor
    start_B: Tensor

    @property
    def num(self) -> int:
        """Count the lists."""
        return self.start_B.shape[0]

    def elements(self, row: int) -> slice:
        """Say which elements are one list's."""
        stop = int(self.start_B[row + 1]) if row + 1 < self.num else self.position_E.shape[0]
        return slice(int(self.start_B[row]), stop)

    @cached_property
    def owner(self) -> Tensor:
        """Number each element's list."""
        num_elements = self.position_E.shape[0]
        ends_B = torch.cat([self.start_B[1:], self.start_B.new_full((1,), num_elements)])
        each_B = torch.arange(self.num, device=self.start_B.device)
        return each_B.repeat_interleave(ends_B - self.start_B, output_size=num_elements)

    @cached_property
    def order(self) -> Tensor:
        """Sort the elements by their positions: lists of elements per row, for gradients of the rows."""
        return self.position_E.argsort(stable=True)


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
            _spread(weight_E, gradient_BA, ctx.lists, rows_UA.shape[0]),
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
            _spread(gradient_E, x_BA, ctx.lists, rows_UA.shape[0]),
            None,
        )


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, score_E: Tensor, lists: RowLists) -> Tensor:
        highest_B = score_E.new_zeros(lists.num).scatter_reduce_(0, lists.owner, score_E, "amax")
        share_E = (score_E - highest_B[lists.owner]).exp_()
        total_B = (-highest_B).exp_().index_add_(0, lists.owner, share_E)
        weight_E = share_E.div_(total_B[lists.owner])
        ctx.save_for_backward(weight_E)
        ctx.lists = lists
        return weight_E

    @staticmethod
    def backward(ctx: Any, gradient_E: Tensor) -> tuple[Tensor | None, ...]:
        (weight_E,) = ctx.saved_tensors
        owner = ctx.lists.owner
        moved_E = weight_E * gradient_E
        mean_B = moved_E.new_zeros(ctx.lists.num).index_add_(0, owner, moved_E)
        return moved_E - weight_E * mean_B[owner], None


def _sum(weight_E: Tensor, rows_UA: Tensor, lists: RowLists) -> Tensor:
    return functional.embedding_bag(
        lists.position_E, rows_UA, lists.start_B, mode="sum", per_sample_weights=weight_E
    )


def _multiply(x_BA: Tensor, rows_UA: Tensor, lists: RowLists) -> Tensor:
    # A bag sum's gradient by the weights is this product, and its kernel copies neither vectors nor rows.
    products_E: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        x_BA, rows_UA, lists.position_E, lists.start_B, lists.owner, 0
    )
    return products_E


def _spread(weight_E: Tensor, x_BA: Tensor, lists: RowLists, num_rows: int) -> Tensor:
    """Add each list's vector, by the elements' weights, to the elements' rows: [U, A]."""
    # A bag sum too, with a bag for every row: of the lists' vectors.
    ordered_E = lists.position_E[lists.order]
    start_U = torch.searchsorted(ordered_E, torch.arange(num_rows, device=ordered_E.device))
    return functional.embedding_bag(
        lists.owner[lists.order],
        x_BA,
        start_U,
        mode="sum",
        per_sample_weights=weight_E[lists.order],
    )
