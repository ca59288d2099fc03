"""What an example's parts say side by side: the trunk's input, and its gradients in few passes.

Autograd would cut the gradient of x, spread the sums' columns and multiply in passes of their own.

Shape letters: B examples, I inputs, D a product's columns.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def joined_with_products(parts: Sequence[Tensor], pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Lay parts, the products [B, D] of pairs, and the sum over D of each product side by side: x [B, I].

    The first product's sum comes last. Takes several backward passes over one forward, no second derivative.
    """
    factors = [factor for pair in pairs for factor in pair]
    x_BI: Tensor = _Joined.apply(len(pairs), *factors, *parts)  # type: ignore[no-untyped-call]
    return x_BI


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, num_pairs: int, *tensors: Tensor) -> Tensor:
        factors, parts = tensors[: 2 * num_pairs], tensors[2 * num_pairs :]
        products = [a * b for a, b in zip(factors[::2], factors[1::2], strict=True)]
        first, *sums = (p.sum(dim=1, keepdim=True) for p in products)
        columns = [*parts, *products, *sums, first]
        ctx.save_for_backward(*factors)
        ctx.widths = [c.shape[1] for c in columns]
        return torch.cat(columns, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BI: Tensor) -> tuple[Tensor | None, ...]:
        factors = ctx.saved_tensors
        cuts, num = torch.split(gradient_BI, ctx.widths, dim=1), len(factors) // 2
        of_parts, of_products, of_sums = cuts[: -2 * num], cuts[-2 * num : -num], (cuts[-1], *cuts[-num:-1])
        of_factors: list[Tensor] = []
        pairs = zip(factors[::2], factors[1::2], of_products, of_sums, strict=True)
        for a_BD, b_BD, of_product_BD, of_sum_B1 in pairs:
            slope_BD = of_product_BD + of_sum_B1
            of_factors += [slope_BD * b_BD, slope_BD * a_BD]
        return None, *of_factors, *of_parts
