"""Balancers that weigh the losses and backpropagate their sum once: fixed, uncertainty, dwa.

A weight of the config says how much a task matters; a method finds the unit in which its loss is counted and
multiplies. A loss that is 0 in a step (nothing observed) does not change a method's state.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.trainer.group import ALONE, Group


@dataclass(frozen=True, slots=True)
class BalanceReport:
    """The weight each loss had in this step."""

    weights: dict[str, float]
    own: bool = False
    """Of several ranks each has its own gradients still; otherwise the balancer has added them up."""


def weighted_backward(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> BalanceReport:
    """Backpropagate the weighted sum; a loss without a weight counts once."""
    total = torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    return BalanceReport(dict(weights), own=True)


class Stateless:
    """A method that looks at one step alone."""

    def state(self) -> dict[str, Any]:
        """Give nothing: no step leaves anything behind."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class Fixed(Stateless):
    """A weighted sum with weights from the config: the reference."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Keep the weights; a loss without one counts once."""
        self.weights = dict(weights)

    def backward(
        self,
        losses: Mapping[str, Tensor],
        shared_parameters: Sequence[Tensor],
        boundary: Sequence[Tensor],
        group: Group = ALONE,
    ) -> BalanceReport:
        """Backpropagate the weighted sum."""
        return weighted_backward(losses, self.weights)


class Uncertainty:
    """Learn log-variances s: minimise the sum of w · (exp(-s) · loss + s) / 2.

    Every s starts where the objective has its minimum for the task's first loss, s = log(loss), and then
    descends by the gradient (1 - exp(-s) · loss) / 2. Both commute with a change of unit: a loss multiplied
    by c shifts its s by log(c) and changes nothing else, from the first step on.

    Source: Kendall et al., CVPR 2018, with one form for all kinds of loss.
    """

    def __init__(self, weights: Mapping[str, float], learning_rate: float) -> None:
        """Start without a variance; `learning_rate` is that of the log-variances."""
        self.weights, self.learning_rate = dict(weights), learning_rate
        self.log_variance: dict[str, float] = {}

    def backward(
        self,
        losses: Mapping[str, Tensor],
        shared_parameters: Sequence[Tensor],
        boundary: Sequence[Tensor],
        group: Group = ALONE,
    ) -> BalanceReport:
        """Backpropagate the losses over their variances, then let the variances follow."""
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        for name, value in values.items():
            if value > 0:
                self.log_variance.setdefault(name, math.log(value))
        used = {
            name: self.weights.get(name, 1.0) * 0.5 * math.exp(-self.log_variance.get(name, 0.0))
            for name in losses
        }
        report = weighted_backward(losses, used)
        for name, value in values.items():
            if value > 0:
                s = self.log_variance[name]
                self.log_variance[name] = s + self.learning_rate * 0.5 * (math.exp(-s) * value - 1)
        return report

    def state(self) -> dict[str, Any]:
        """Give the log-variances."""
        return dict(self.log_variance)

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.log_variance = dict(state)


class DynamicWeightAverage:
    """Weights that follow how slowly each loss falls: K · softmax(r / temperature).

    r is a loss's mean over the last full window of steps over its mean in the window before; the paper's
    window is an epoch, a stream of steps has none. Every r is 1 until two windows are full, or where a loss
    was 0 throughout one.

    Source: Liu et al., CVPR 2019.
    """

    def __init__(self, weights: Mapping[str, float], temperature: float, window: int) -> None:
        """Start with equal rates; `window` counts steps."""
        self.weights, self.temperature, self.window = dict(weights), temperature, window
        self.rates: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._seen: dict[str, list[float]] = {}
        self._steps = 0

    def backward(
        self,
        losses: Mapping[str, Tensor],
        shared_parameters: Sequence[Tensor],
        boundary: Sequence[Tensor],
        group: Group = ALONE,
    ) -> BalanceReport:
        """Backpropagate the sum, weighted by the last two windows' rates."""
        rates = {name: self.rates.get(name, 1.0) for name in losses}
        slowest = max(rates.values())  # taken off all: at a low temperature the plain powers overflow
        share = {name: math.exp((rate - slowest) / self.temperature) for name, rate in rates.items()}
        total = sum(share.values())
        used = {n: self.weights.get(n, 1.0) * len(share) * part / total for n, part in share.items()}
        report = weighted_backward(losses, used)
        self._remember({name: float(loss.detach()) for name, loss in losses.items()})
        return report

    def state(self) -> dict[str, Any]:
        """Give the rates and what the open window has seen."""
        return {"rates": self.rates, "before": self._before, "seen": self._seen, "steps": self._steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.rates, self._before = dict(state["rates"]), dict(state["before"])
        self._seen = {name: list(values) for name, values in state["seen"].items()}
        self._steps = state["steps"]

    def _remember(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if value > 0:
                self._seen.setdefault(name, []).append(value)
        self._steps += 1
        if self._steps % self.window == 0:
            means = {name: math.fsum(seen) / len(seen) for name, seen in self._seen.items()}
            self.rates = {n: m / self._before[n] for n, m in means.items() if n in self._before}
            self._before, self._seen = means, {}
