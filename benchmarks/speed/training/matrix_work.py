"""Count the operations of the matrix products that a piece of code makes, those inside oneDNN too.

torch's own counter knows the products of aten. The layers of the experts are one oneDNN call each, which it
passes over in silence, and so are products with a vector and those in place.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")
Shape = Sequence[int]


def _linear(x: Shape, weight_OI: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(x) * weight_OI[0]


def _matrix_vector(matrix: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(matrix)


def _added_product(_: Shape, left: Shape, right: Shape, *__: Any, **___: Any) -> int:
    return 2 * math.prod(left) * right[-1]


MORE_PRODUCTS: Final[dict[Any, Callable[..., int]]] = {
    torch.ops.mkldnn._linear_pointwise: _linear,
    torch.ops.aten.mv: _matrix_vector,
    torch.ops.aten.addmm_: _added_product,
    torch.ops.aten.baddbmm_: _added_product,
}
"""Operator -> how many operations it makes, from the shapes of its arguments."""


def matrix_flop(call: Callable[[], T]) -> float:
    """Run something; give the operations of its products, a multiplication and an addition being two."""
    with FlopCounterMode(display=False, custom_mapping=MORE_PRODUCTS) as counter:
        call()
    return float(counter.get_total_flops())
