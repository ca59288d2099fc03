"""How the tasks' losses become one backward: BALANCERS maps the name in TOML to a class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from recsys.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BalanceReport:
    """The weight each loss had in this step."""

    weights: dict[str, float]


class Balancer(Protocol):
    """Turns losses into gradients of the shared parameters and of the looked-up rows (the boundary)."""

    def backward(
        self, losses: Mapping[str, Tensor], shared_parameters: Sequence[Tensor], boundary: Sequence[Tensor]
    ) -> BalanceReport:
        """Put gradients on the shared parameters and the boundary; the tables step once from the latter."""


class Fixed:
    """A weighted sum with weights from the config: the reference."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Keep the weights; a loss without one counts once."""
        self.weights = dict(weights)

    def backward(
        self, losses: Mapping[str, Tensor], shared_parameters: Sequence[Tensor], boundary: Sequence[Tensor]
    ) -> BalanceReport:
        """Backpropagate the weighted sum."""
        del shared_parameters, boundary
        total = torch.stack([self.weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return BalanceReport(self.weights)


BALANCERS: dict[str, type[Fixed]] = {"fixed": Fixed}


def build_balancer(name: str, weights: Mapping[str, float]) -> Balancer:
    """Build a balancer by name.

    Raises: ConfigError listing the known names.
    """
    if name not in BALANCERS:
        raise ConfigError(f"[training] balancing = {name!r} is unknown; known: {', '.join(BALANCERS)}")
    return BALANCERS[name](weights)
