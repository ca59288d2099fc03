"""E networks of linear + ReLU layers that read one input: forward and backward written by hand.

The plain form is a product, an addition and a ReLU per layer and network, which autograd answers with as many
separate passes. Here a layer's networks lie side by side in one tensor [B, E · H]: the first layer is one
product, ReLU's mask is read off the activations in one pass, and all gradients of the input and of the first
layer are one product each. A linear layer beside the networks (a gate) joins these two. No gradient is formed
for columns of the input that are data. Rows go through in blocks that stay in the cache; weights are cast to
the product's type once, and their gradients are summed in the type they have.

Shape letters: B rows, I inputs, E networks, H a layer's width, K outputs of the layer beside.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

BLOCK = 2048
"""Rows that go through all layers together."""


def _fused_types() -> frozenset[torch.dtype]:
    """Name the types that oneDNN multiplies on this processor: without AVX512 it has no bfloat16."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return frozenset()
    has_bf16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return frozenset({torch.float32, torch.bfloat16} if has_bf16 else {torch.float32})


FUSED = _fused_types()


def relu_networks(
    x_BI: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], dropout: float
) -> Tensor:
    """Run E networks of equal shape: [B, E, H]. Under autocast the products have its type.

    Args: weights, biases: per layer, [E, in, out] and [E, out]. dropout: share of activations hidden.
    """
    num_in = weights[0].shape[1]
    none = weights[0].new_empty(0, num_in), weights[0].new_empty(0)
    return relu_networks_beside(x_BI, weights, biases, dropout, *none)[0]


def relu_networks_beside(
    x_BI: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    dropout: float,
    beside_KI: Tensor,
    beside_K: Tensor,
    learned: Sequence[slice] | None = None,
) -> tuple[Tensor, Tensor]:
    """Run E networks [B, E, H] and, on the same input, a linear layer [B, K].

    Args: weights, biases, dropout: as `relu_networks`; beside_KI, beside_K: weight and bias of the layer.
    learned: the columns of x whose gradient is wanted, the others' is 0; None: all.
    """
    columns = [slice(0, x_BI.shape[1])] if learned is None else learned
    found: tuple[Tensor, Tensor] = _ReluNetworks.apply(  # type: ignore[no-untyped-call]
        in_product_type(x_BI), dropout, columns, beside_KI, beside_K, *weights, *biases
    )
    return found


def in_product_type(x: Tensor) -> Tensor:
    """Cast to what autocast would multiply in: once, where several products read the same input."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class _ReluNetworks(torch.autograd.Function):
    """Takes several backward passes over one forward (balancers make one per loss), no second derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BI: Tensor,
        dropout: float,
        learned: Sequence[slice],
        beside_KI: Tensor,
        beside_K: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        cast = [p.to(x_BI.dtype) for p in parameters]
        weights, biases = cast[: len(cast) // 2], cast[len(cast) // 2 :]
        weights[0] = _side_by_side(weights[0])
        first_IW = torch.cat([weights[0], beside_KI.to(x_BI.dtype).t()], dim=1)
        num, width = biases[-1].shape
        out_BEH = x_BI.new_empty(x_BI.shape[0], num, width)
        hidden: list[Tensor] = []
        for rows in _blocks(x_BI.shape[0]):
            hidden += _forward(x_BI[rows], weights, biases, dropout, out_BEH[rows].flatten(1))
        ctx.save_for_backward(x_BI, out_BEH, first_IW, *weights[1:], *hidden)
        ctx.dropout, ctx.learned, ctx.num_layers = dropout, learned, len(weights)
        ctx.num_first = biases[0].numel()
        ctx.dtypes = [p.dtype for p in parameters[: len(weights)]]
        beside_BK = functional.linear(x_BI, beside_KI.to(x_BI.dtype), beside_K.to(x_BI.dtype))
        return out_BEH, beside_BK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BEH: Tensor, grad_BK: Tensor) -> tuple[Tensor | None, ...]:
        x_BI, out_BEH, first_IW, *saved = ctx.saved_tensors
        weights, hidden = saved[: ctx.num_layers - 1], saved[ctx.num_layers - 1 :]
        grads = _Gradients(ctx, x_BI, first_IW, weights, out_BEH.shape[1])
        per_block = ctx.num_layers - 1
        for place, rows in enumerate(_blocks(x_BI.shape[0])):
            activations = [*hidden[place * per_block : (place + 1) * per_block], out_BEH[rows].flatten(1)]
            grads.add(rows, activations, grad_BEH[rows].flatten(1), grad_BK[rows])
        return grads.x_BI, None, None, *grads.of_beside, *grads.of_weights, *grads.of_biases


def _forward(
    x_BI: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    dropout: float,
    out_BW: Tensor,
) -> list[Tensor]:
    """Fill a block of the outputs; give the activations [B, E · H] of the layers below, in order.

    Args: weights: [I, E · H], then per layer [E, in, out]; biases: per layer [E, out].
    """
    num = biases[0].shape[0]
    h_BW = _drop(linear_relu(x_BI, weights[0], biases[0].flatten()), dropout)
    if len(biases) == 1:
        out_BW.copy_(h_BW)
        return []
    hidden = []
    for place in range(1, len(biases)):
        hidden.append(h_BW)
        wide = biases[place].numel()
        above_BW = out_BW if place == len(biases) - 1 else h_BW.new_empty(h_BW.shape[0], wide)
        parts = zip(
            h_BW.chunk(num, dim=1), weights[place], above_BW.chunk(num, dim=1), biases[place], strict=True
        )
        for below, weight, above, bias in parts:
            torch.addmm(bias, below, weight, out=above)
        h_BW = _drop(above_BW.relu_(), dropout)
    return hidden


class _Gradients:
    """Sums over blocks: of the input, and of each layer's weights and biases."""

    def __init__(self, ctx: Any, x_BI: Tensor, first_IW: Tensor, weights: Sequence[Tensor], num: int) -> None:
        self.input_BI, self.weights, self.first_IW, self.num = x_BI, weights, first_IW, num
        self.dropout, self.learned, self._num_first = ctx.dropout, ctx.learned, ctx.num_first
        self.x_BI = _zeros_beside(x_BI, self.learned) if ctx.needs_input_grad[0] else None
        first, *others = ctx.dtypes
        self.of_first_IW = torch.zeros(first_IW.shape, dtype=first, device=x_BI.device)
        self.of_first_W = self.of_first_IW.new_zeros(first_IW.shape[1])
        self.of_others = [
            torch.zeros(w.shape, dtype=d, device=w.device) for w, d in zip(weights, others, strict=True)
        ]
        self.of_other_biases = [w.new_zeros(num, w.shape[2]) for w in self.of_others]

    def add(self, rows: slice, activations: Sequence[Tensor], grad_BW: Tensor, beside_BK: Tensor) -> None:
        """Go down a block from the gradient after the last ReLU."""
        first_BW = self.input_BI.new_empty(grad_BW.shape[0], self.first_IW.shape[1])
        own_BW, first_BW[:, self._num_first :] = first_BW[:, : self._num_first], beside_BK
        own = [own_BW, *(torch.empty_like(h) for h in activations[1:])]
        self._through_relu(grad_BW, activations[-1], own[-1])
        for place in range(len(self.weights) - 1, -1, -1):
            grad_BW, below_BW, lower_BW = own[place + 1], activations[place], own[place]
            self.of_other_biases[place].view(-1).add_(grad_BW.sum(dim=0))
            parts = (t.chunk(self.num, dim=1) for t in (below_BW, grad_BW, lower_BW))
            each = zip(*parts, self.weights[place], self.of_others[place], strict=True)
            for below, grad, lower, weight, of_weight in each:
                _add_product(of_weight, below.t(), grad)
                torch.mm(grad, weight.t(), out=lower)
            self._through_relu(lower_BW, below_BW, lower_BW)
        self._add_first(rows, first_BW)

    def _add_first(self, rows: slice, grad_BW: Tensor) -> None:
        _add_product(self.of_first_IW, self.input_BI[rows].t(), grad_BW)
        self.of_first_W.add_(grad_BW.sum(dim=0))
        if self.x_BI is not None:
            for columns in self.learned:
                torch.mm(grad_BW, self.first_IW[columns].t(), out=self.x_BI[rows, columns])

    def _through_relu(self, grad: Tensor, h: Tensor, out: Tensor) -> None:
        """Take a gradient of h, which ReLU and dropout made, to before both: h is 0 where either hid it."""
        torch.ops.aten.threshold_backward.grad_input(grad, h, 0, grad_input=out)
        if self.dropout:
            out.div_(1 - self.dropout)

    @property
    def of_beside(self) -> tuple[Tensor, Tensor]:
        """Give the gradients of the layer beside."""
        return self.of_first_IW[:, self._num_first :].t(), self.of_first_W[self._num_first :]

    @property
    def of_weights(self) -> list[Tensor]:
        """Give each layer's gradient [E, in, out]."""
        first_IW = self.of_first_IW[:, : self._num_first]
        first_IEH = first_IW.view(first_IW.shape[0], self.num, self._num_first // self.num)
        return [first_IEH.transpose(0, 1), *self.of_others]

    @property
    def of_biases(self) -> list[Tensor]:
        """Give each layer's gradient [E, out]."""
        return [self.of_first_W[: self._num_first].view(self.num, -1), *self.of_other_biases]


def _zeros_beside(x_BI: Tensor, learned: Sequence[slice]) -> Tensor:
    """Make a tensor like x, 0 outside some ascending columns, which are to be filled."""
    found_BI, end = torch.empty_like(x_BI), 0
    for columns in [*learned, slice(x_BI.shape[1], None)]:
        found_BI[:, end : columns.start] = 0
        end = columns.stop
    return found_BI


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a product to a sum, which may be of a wider type."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a @ b)


def linear_relu(x_BI: Tensor, weight_IO: Tensor, bias_O: Tensor) -> Tensor:
    """Return relu(x @ weight + bias): one oneDNN call where there is one, without a graph."""
    if x_BI.device.type == "cpu" and x_BI.dtype in FUSED:
        fused: Tensor = torch.ops.mkldnn._linear_pointwise(x_BI, weight_IO.t(), bias_O, "relu", [], "")
        return fused
    return torch.addmm(bias_O, x_BI, weight_IO).relu_()


def _blocks(num: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, num)) for start in range(0, num, BLOCK)]


def _side_by_side(weight_EIH: Tensor) -> Tensor:
    """Lay the networks' weights side by side, [I, E · H]."""
    return weight_EIH.transpose(0, 1).flatten(1)


def _drop(h: Tensor, dropout: float) -> Tensor:
    return functional.dropout(h, dropout, inplace=True) if dropout else h
