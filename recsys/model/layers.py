"""Small layers shared by towers, trunks and heads."""

from collections.abc import Sequence

from torch import nn


def mlp(num_in: int, widths: Sequence[int], dropout: float = 0.0) -> nn.Sequential:
    """Stack Linear + ReLU (+ dropout) layers."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(num_in, width), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        num_in = width
    return nn.Sequential(*layers)
