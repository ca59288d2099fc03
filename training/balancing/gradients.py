"""Balancers that look at one gradient per loss: GradNorm, and TorchJD's aggregators by name.

A step holds one gradient per loss of the dense parameters and of the boundary (the looked-up rows): memory
and time grow with the number of losses. What several losses reach, and the boundary, is shared; a dense
parameter that one loss alone reaches (a head, a gate) belongs to that task. A loss with gradient 0 in a
step (nothing observed) is left out of it: for a min-norm method its zero would end the step for all.

Shape letters: K losses, P numbers of a tensor.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recsys.errors import ConfigError
from training.balancing.weights import BalanceReport, Stateless
from training.errors import DivergedError
from training.trainer.group import ALONE, Group

if TYPE_CHECKING:
    from torchjd.aggregation import GramianWeightedAggregator, Weighting
    from torchjd.linalg import DualConeProjector


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGradients:
    """One gradient per loss and tensor; None where the loss does not reach the tensor."""

    tensors: tuple[Tensor, ...]
    by_task: dict[str, tuple[Tensor | None, ...]]
    shared: tuple[bool, ...]
    """Tensor -> several losses reach it, or it is part of the boundary."""

    def gramian(self) -> Tensor:
        """Give the inner products [K, K] (float64, on the CPU) of the shared parts, in the losses' order."""
        num = len(self.by_task)
        total = torch.zeros(num, num, dtype=torch.float64, device=self.tensors[0].device)
        for i, tensor in enumerate(self.tensors):
            if self.shared[i]:
                rows = [_flat(gradients[i], tensor) for gradients in self.by_task.values()]
                rows_KP = torch.stack(rows)
                total += (rows_KP @ rows_KP.T).double()
        return total.cpu()

    def apply(self, shared: Mapping[str, float], own: Mapping[str, float]) -> None:
        """Add the weighted sums to `.grad`: weights for what is shared, and for what is a task's own."""
        for i, tensor in enumerate(self.tensors):
            weights = shared if self.shared[i] else own
            for name, gradients in self.by_task.items():
                gradient = gradients[i]
                if gradient is not None:
                    part = weights[name] * gradient
                    tensor.grad = part if tensor.grad is None else tensor.grad.add_(part)


def task_gradients(
    losses: Mapping[str, Tensor],
    parameters: Sequence[Tensor],
    boundary: Sequence[Tensor],
    group: Group = ALONE,
) -> TaskGradients:
    """Differentiate each loss on its own, over all ranks; losses without a graph are left out."""
    tensors = (*parameters, *boundary)
    live = {name: loss for name, loss in losses.items() if loss.requires_grad}
    by_task: dict[str, tuple[Tensor | None, ...]] = {
        name: torch.autograd.grad(loss, tensors, retain_graph=left < len(live), allow_unused=True)
        for left, (name, loss) in enumerate(live.items(), start=1)
    }
    group.sum_([g for gradients in by_task.values() for g in gradients if g is not None])
    reached = [sum(g[i] is not None for g in by_task.values()) for i in range(len(tensors))]
    shared = tuple(count > 1 or i >= len(parameters) for i, count in enumerate(reached))
    return TaskGradients(tensors=tensors, by_task=by_task, shared=shared)


class GradNorm:
    """Weights that make every task learn at its target rate.

    The norm of w · gradient over what is shared is pulled, by the L1 distance, to the tasks' mean times
    r ** alpha; r is a task's loss over its first loss, and the powers are scaled to a mean of 1 (the paper
    scales r itself: then the targets do not sum to the norms, and no weights can meet them). The config's
    weights say how far one task's target is above another's, and are the weights of the first step. Weights
    are trained as logarithms by Adam, so they stay positive and a step is relative; their sum stays the same.

    Source: Chen et al., ICML 2018; here the norm is over all that is shared, not one layer.
    """

    def __init__(self, weights: Mapping[str, float], alpha: float, learning_rate: float) -> None:
        """Start from the config's weights; `learning_rate` is that of the log-weights."""
        self.priority, self.alpha, self.learning_rate = dict(weights), alpha, learning_rate
        self.first: dict[str, float] = {}
        self.log_weight: dict[str, Tensor] = {}
        self._adam: dict[str, torch.optim.Adam] = {}

    def backward(
        self,
        losses: Mapping[str, Tensor],
        shared_parameters: Sequence[Tensor],
        boundary: Sequence[Tensor],
        group: Group = ALONE,
    ) -> BalanceReport:
        """Put the weighted gradients where they belong, then move the weights."""
        gradients = task_gradients(losses, shared_parameters, boundary, group)
        used = {name: self._weight(name) for name in losses}
        gradients.apply(used, used)
        norms = dict(zip(gradients.by_task, gradients.gramian().diagonal().sqrt().tolist(), strict=True))
        self._follow(used, {n: v for n, v in norms.items() if v > 0 and used[n] > 0}, losses)
        return BalanceReport(used)

    def state(self) -> dict[str, Any]:
        """Give the first losses, the log-weights and Adam's moments of them."""
        moments = {
            name: {key: float(value) for key, value in adam.state[self.log_weight[name]].items()}
            for name, adam in self._adam.items()
        }
        weights = {name: float(value) for name, value in self.log_weight.items()}
        return {"first": self.first, "log_weight": weights, "adam": moments}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.first = dict(state["first"])
        for name, value in state["log_weight"].items():
            own = self._own(name, math.exp(value))
            own.data.fill_(value)
            moments = {k: torch.tensor(v, dtype=own.dtype) for k, v in state["adam"][name].items()}
            self._adam[name].state[own] = moments | {"step": torch.tensor(state["adam"][name]["step"])}

    def _weight(self, name: str) -> float:
        if name in self.log_weight:
            return float(self.log_weight[name].detach().exp())
        return self.priority.get(name, 1.0)

    def _follow(
        self, used: Mapping[str, float], norms: Mapping[str, float], losses: Mapping[str, Tensor]
    ) -> None:
        """Move the log-weights of the losses that have a gradient; `norms` are of unweighted gradients."""
        if len(norms) < 2:
            return
        pull = {
            n: self.priority.get(n, 1.0) * _ratio(float(losses[n].detach()), self.first, n) ** self.alpha
            for n in norms
        }
        reached = {n: used[n] * norm for n, norm in norms.items()}
        total = sum(reached.values())
        before = sum(used[n] for n in norms)
        for n in norms:
            target = total * pull[n] / sum(pull.values())
            own = self._own(n, used[n])
            # The gradient of |w · norm - target| by log w, in units of the sum; Adam sets the scale.
            own.grad = torch.tensor(np.sign(reached[n] - target) * reached[n] / total)
            self._adam[n].step()
        after = sum(self._weight(n) for n in norms)
        for n in norms:
            self.log_weight[n].data += float(np.log(before / after))

    def _own(self, name: str, weight: float) -> Tensor:
        if name not in self.log_weight:
            self.log_weight[name] = torch.tensor(float(np.log(weight)), dtype=torch.float64)
            self._adam[name] = torch.optim.Adam([self.log_weight[name]], lr=self.learning_rate)
        return self.log_weight[name]


class Aggregated(Stateless):
    """One of TorchJD's aggregators over what is shared; each task's own parameters get its plain gradient.

    Losses are multiplied by the config's weights first. Weights come from the Gramian of the gradients, so no
    Jacobian is ever concatenated.
    """

    def __init__(self, weights: Mapping[str, float], aggregator: "GramianWeightedAggregator") -> None:
        """Keep the config's weights and the aggregator."""
        self.weights, self.aggregator = dict(weights), aggregator

    def backward(
        self,
        losses: Mapping[str, Tensor],
        shared_parameters: Sequence[Tensor],
        boundary: Sequence[Tensor],
        group: Group = ALONE,
    ) -> BalanceReport:
        """Aggregate the losses' gradients and put the result on the parameters and the boundary.

        Raises: DivergedError when a gradient is not finite, or too long to be squared.
        """
        scaled = {name: self.weights.get(name, 1.0) * loss for name, loss in losses.items()}
        gradients = task_gradients(scaled, shared_parameters, boundary, group)
        found = dict.fromkeys(losses, 0.0) | self._aggregate(
            list(gradients.by_task), gradients.gramian(), group
        )
        gradients.apply(found, dict.fromkeys(losses, 1.0))
        return BalanceReport({name: found[name] * self.weights.get(name, 1.0) for name in losses})

    def _aggregate(self, names: Sequence[str], gramian: Tensor, group: Group) -> dict[str, float]:
        length = gramian.diagonal()
        if not bool(length.isfinite().all()):
            lengths = dict(zip(names, length.sqrt().tolist(), strict=True))
            raise DivergedError(
                f"gradients have the lengths {lengths}: no finite step can be made of them; "
                "lower [training] learning_rate"
            )
        speaks = length > 0
        if not bool(speaks.any()):
            return {}
        part = gramian[speaks][:, speaks]
        # Only ratios matter to the methods, and their own thresholds are absolute.
        weights = self.aggregator.gramian_weighting(part / part.diagonal().mean())
        weights = group.parts(weights)[0]  # PCGrad draws an order, and every rank draws its own
        said = [name for name, one in zip(names, speaks.tolist(), strict=True) if one]
        return dict(zip(said, weights.tolist(), strict=True))


def build_aggregator(name: str, options: Mapping[str, float]) -> "GramianWeightedAggregator":
    """Build one of TorchJD's aggregators.

    Raises: ConfigError when it needs a package that is not installed.
    """
    from torchjd import aggregation

    try:
        match name:
            case "mgda":
                return aggregation.GramianWeightedAggregator(_min_norm_weighting())
            case "upgrad":
                return aggregation.UPGrad(projector=_nnls_projector())
            case "dual_proj":
                return aggregation.DualProj(projector=_nnls_projector())
            case "cagrad":
                return aggregation.CAGrad(**options)
        return {
            "pcgrad": aggregation.PCGrad,
            "imtl_g": aggregation.IMTLG,
            "aligned_mtl": aggregation.AlignedMTL,
        }[name]()
    except ImportError as error:
        raise ConfigError(
            f"[training] balancing = {name!r} needs packages of its own; install them with "
            f"`pip install 'recsys-mtl[{name}]'` ({error})"
        ) from error


def _min_norm_weighting() -> "Weighting[Tensor]":
    """Give TorchJD the weights of MGDA exactly: its own Frank-Wolfe stops after steps that cost milliseconds.

    With G = RR', min |R'w| over the simplex is, up to length, min |R'w|² + (1 - sum w)² with w >= 0: the
    least value of the latter along a ray grows with that of the former. Source: Désidéri, C. R. Math. 2012.
    """
    from scipy.optimize import nnls
    from torchjd.aggregation import Weighting

    class MinNorm(Weighting):  # type: ignore[type-arg]
        def forward(self, gramian: Tensor) -> Tensor:
            ones = np.ones((1, gramian.shape[0]))
            weights = nnls(np.vstack([_root(gramian).T, ones]), np.append(0.0 * ones, 1.0))[0]
            return torch.from_numpy(weights / weights.sum())

    return MinNorm()


def _nnls_projector() -> "DualConeProjector":
    """Give TorchJD a projection onto the dual cone that needs scipy alone and no regularisation.

    min v'Gv with v >= u is, with v = u + x and G = RR', least squares: min |R'x + R'u| with x >= 0.
    """
    from scipy.optimize import nnls
    from torchjd.linalg import DualConeProjector

    class NnlsProjector(DualConeProjector):
        def __call__(self, U: Tensor, G: Tensor) -> Tensor:
            root = _root(G)
            rows = [u + nnls(root.T, -root.T @ u)[0] for u in U.numpy().reshape(-1, G.shape[0])]
            return torch.from_numpy(np.stack(rows)).reshape(U.shape)

    return NnlsProjector()


def _root(gramian: Tensor) -> np.ndarray:
    """Factor a Gramian G into R [K, K] with RR' = G."""
    values, vectors = np.linalg.eigh(gramian.numpy())
    root: np.ndarray = vectors * np.sqrt(values.clip(min=0.0))
    return root


def _flat(gradient: Tensor | None, tensor: Tensor) -> Tensor:
    return tensor.new_zeros(tensor.numel()) if gradient is None else gradient.detach().reshape(-1)


def _ratio(value: float, first: dict[str, float], name: str) -> float:
    """Divide a loss by its first value that was not 0."""
    if value > 0:
        first.setdefault(name, value)
    return value / first.get(name, 1.0)
