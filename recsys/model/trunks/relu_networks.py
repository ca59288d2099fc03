"""E networks of linear + ReLU layers that read one input: forward and backward written by hand.

The plain form is a product, an addition and a ReLU per layer and network, which autograd answers with as many
separate passes. Here oneDNN applies bias and ReLU inside the product, ReLU's mask is read off the activation,
the first layer's gradients are one wide product over all networks, and rows go through in blocks that stay in
the cache. Weights are cast to the product's type once, and their gradients are summed in the type they have.

Shape letters: B rows, I inputs, E networks, H a layer's width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

BLOCK = 2048
"""Rows that go through all layers together."""
FUSED = {torch.float32, torch.bfloat16}
HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def relu_networks(
    x_BI: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], dropout: float
) -> Tensor:
    """Run E networks of equal shape: [B, E, H]. Under autocast the products have its type.

    Args: weights, biases: per layer, [E, in, out] and [E, out]. dropout: share of activations hidden.
    """
    found: Tensor = _ReluNetworks.apply(in_product_type(x_BI), dropout, *weights, *biases)  # type: ignore[no-untyped-call]
    return found


def in_product_type(x: Tensor) -> Tensor:
    """Cast to what autocast would multiply in: once, where several products read the same input."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class _ReluNetworks(torch.autograd.Function):
    """Takes several backward passes over one forward (balancers make one per loss), no second derivative."""

    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, dropout: float, *parameters: Tensor) -> Tensor:
        cast = [p.to(x_BI.dtype) for p in parameters]
        weights, biases = cast[: len(cast) // 2], cast[len(cast) // 2 :]
        num, width = biases[-1].shape
        out_BEH = x_BI.new_empty(x_BI.shape[0], num, width)
        hidden: list[Tensor] = []
        for rows in _blocks(x_BI.shape[0]):
            hidden += _forward(x_BI[rows], weights, biases, dropout, out_BEH[rows])
        ctx.save_for_backward(x_BI, out_BEH, *weights, *hidden)
        ctx.dropout, ctx.dtypes = dropout, [p.dtype for p in parameters[: len(weights)]]
        return out_BEH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BEH: Tensor) -> tuple[Tensor | None, ...]:
        x_BI, out_BEH, *saved = ctx.saved_tensors
        num_layers = len(ctx.dtypes)
        weights, hidden = saved[:num_layers], saved[num_layers:]
        grads = _Gradients(x_BI, weights, ctx.dtypes, ctx.dropout, wanted=ctx.needs_input_grad[0])
        per_block = weights[0].shape[0] * (num_layers - 1)
        for place, rows in enumerate(_blocks(x_BI.shape[0])):
            own = hidden[place * per_block : (place + 1) * per_block]
            grads.add(rows, _through_relu(grad_BEH[rows], out_BEH[rows], ctx.dropout), own)
        return grads.x_BI, None, *grads.of_weights, *grads.of_biases


def _forward(
    x_BI: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], dropout: float, out_BEH: Tensor
) -> list[Tensor]:
    """Fill a block of the outputs; give the activations [B, H] below them, by layer, then by network."""
    if len(weights) == 1:
        wide = linear_relu(x_BI, _side_by_side(weights[0]), biases[0].flatten())
        out_BEH.copy_(_drop(wide, dropout).view_as(out_BEH))
        return []
    layers = [(w.unbind(), b.unbind()) for w, b in zip(weights, biases, strict=True)]
    streams = []
    for e in range(out_BEH.shape[1]):
        activations = [x_BI]
        for weight, bias in layers:
            activations.append(_drop(linear_relu(activations[-1], weight[e], bias[e]), dropout))
        streams.append(activations[1:])
    torch.stack([s[-1] for s in streams], dim=1, out=out_BEH)
    return [s[layer] for layer in range(len(layers) - 1) for s in streams]


class _Gradients:
    """Sums over blocks: of the input, and of each layer's weights and biases."""

    def __init__(
        self,
        x_BI: Tensor,
        weights: Sequence[Tensor],
        dtypes: Sequence[torch.dtype],
        dropout: float,
        *,
        wanted: bool,
    ) -> None:
        self.input_BI, self.weights, self.dropout = x_BI, weights, dropout
        self.x_BI = torch.empty_like(x_BI) if wanted else None
        self.of_weights = [
            torch.zeros(w.shape, dtype=d, device=w.device) for w, d in zip(weights, dtypes, strict=True)
        ]
        self.of_biases = [w.new_zeros(w.shape[0], w.shape[2]) for w in self.of_weights]
        self.first_wide = _side_by_side(weights[0])

    def add(self, rows: slice, grad_BEH: Tensor, hidden: Sequence[Tensor]) -> None:
        """Go down a block from the gradient before the last ReLU."""
        num, num_in, width = self.weights[0].shape
        for layer in range(len(self.weights) - 1, 0, -1):
            below = hidden[(layer - 1) * num : layer * num]
            each = zip(below, self.weights[layer].unbind(), grad_BEH.unbind(dim=1), strict=True)
            self.of_biases[layer].add_(grad_BEH.sum(dim=0))
            found = [(h.t() @ grad, _through_relu(grad @ w.t(), h, self.dropout)) for h, w, grad in each]
            self.of_weights[layer].add_(torch.stack([weight for weight, _ in found]))
            grad_BEH = torch.stack([lower for _, lower in found], dim=1)
        wide = grad_BEH.flatten(1)
        first_IEH = (self.input_BI[rows].t() @ wide).view(num_in, num, width)
        self.of_weights[0].add_(first_IEH.transpose(0, 1))
        self.of_biases[0].add_(grad_BEH.sum(dim=0))
        if self.x_BI is not None:
            self.x_BI[rows] = functional.linear(wide, self.first_wide)


def linear_relu(x_BI: Tensor, weight_IO: Tensor, bias_O: Tensor) -> Tensor:
    """Return relu(x @ weight + bias): one oneDNN call where there is one, without a graph."""
    if x_BI.device.type == "cpu" and x_BI.dtype in FUSED and HAS_ONEDNN:
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


def _through_relu(grad: Tensor, h: Tensor, dropout: float) -> Tensor:
    """Take a gradient of h, which ReLU and dropout made, to before both: h is 0 wherever either hid it."""
    found: Tensor = torch.ops.aten.threshold_backward(grad, h, 0)
    return found.div_(1 - dropout) if dropout else found
