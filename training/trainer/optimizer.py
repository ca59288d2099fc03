"""The dense parameters' optimiser: AdamW, its schedule, and the bound on the gradient's length.

All parameters of one learning rate lie in one flat tensor, their gradients and moments in others: a model of
a hundred small tensors is stepped, bounded and cleared by one call each. Outside, everything goes by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.trainer.learner import Learner
from training.trainer.settings import FitSettings

MAX_GRADIENT_NORM = 10.0
BETAS = (0.9, 0.999)
EPS = 1e-8
ALIGNMENT = 16
"""Numbers: every parameter starts at a whole cache line."""


@dataclass(slots=True)
class FlatGroup:
    """The parameters of one learning rate, end to end; each parameter and its gradient are views."""

    scale: float
    """Their multiple of the learning rate."""
    values: Tensor
    gradient: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor
    learning_rate: float = 0.0

    @classmethod
    def of(cls, scale: float, parameters: Sequence[nn.Parameter]) -> "FlatGroup":
        """Move the parameters into one flat tensor."""
        size, like = sum(map(_room, parameters)), parameters[0]
        # A storage of their own: a trained model keeps its values alone.
        values, gradient, exp_avg, exp_avg_sq = (like.detach().new_zeros(size) for _ in range(4))
        group = cls(scale, values, gradient, exp_avg, exp_avg_sq, like.detach().new_zeros(()))
        places = zip(parameters, cls.views(values, parameters), cls.views(gradient, parameters), strict=True)
        for parameter, own, slope in places:
            own.copy_(parameter.detach())
            parameter.data, parameter.grad = own, slope
        return group

    @staticmethod
    def views(flat: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Cut a flat tensor into one view per parameter, of its shape."""
        starts = torch.tensor([0, *map(_room, parameters)]).cumsum(0).tolist()
        return [flat[a : a + p.numel()].view(p.shape) for a, p in zip(starts[:-1], parameters, strict=True)]

    def descend(self, weight_decay: float) -> None:
        """Make one step of AdamW."""
        self.step += 1
        torch._fused_adamw_(
            [self.values],
            [self.gradient],
            [self.exp_avg],
            [self.exp_avg_sq],
            [],
            [self.step],
            lr=self.learning_rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=weight_decay,
            eps=EPS,
            amsgrad=False,
            maximize=False,
        )


class DenseOptimizer:
    """AdamW over a learner's dense parameters (Loshchilov & Hutter, ICLR 2019).

    A parameter that no loss reaches in a step has gradient 0, and its moments fade; weight decay acts on it.
    """

    def __init__(self, learner: Learner, settings: FitSettings) -> None:
        """Take the parameters over; each group has its own multiple of the learning rate."""
        self.settings = settings
        # Weight decay would move what is frozen.
        self.named = {name: p for name, p in learner.named_parameters() if p.requires_grad}
        self.parameters = list(self.named.values())
        self.groups: list[FlatGroup] = []
        self._slots: dict[int, tuple[FlatGroup, Tensor, Tensor]] = {}
        for scale, every in learner.parameter_groups().items():
            parameters = [p for p in every if p.requires_grad]
            if parameters:
                group = FlatGroup.of(scale, parameters)
                first, second = (group.views(m, parameters) for m in (group.exp_avg, group.exp_avg_sq))
                self.groups.append(group)
                self._slots |= {
                    id(p): (group, a, b) for p, a, b in zip(parameters, first, second, strict=True)
                }

    @property
    def gradients(self) -> list[Tensor]:
        """Give the gradients of all parameters, flat, one tensor per learning rate."""
        return [group.gradient for group in self.groups]

    @property
    def has_stepped(self) -> bool:
        """Tell whether a step was made: before it the moments have no scale."""
        return any(float(group.step) > 0 for group in self.groups)

    def state(self) -> dict[str, Tensor]:
        """Give AdamW's state by parameter: `<name>.exp_avg`, `<name>.exp_avg_sq`, `<name>.step`."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.named.items():
            group, exp_avg, exp_avg_sq = self._slots[id(parameter)]
            found |= {
                f"{name}.exp_avg": exp_avg,
                f"{name}.exp_avg_sq": exp_avg_sq,
                f"{name}.step": group.step,
            }
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, parameter in self.named.items():
            group, exp_avg, exp_avg_sq = self._slots[id(parameter)]
            exp_avg.copy_(state[f"{name}.exp_avg"])
            exp_avg_sq.copy_(state[f"{name}.exp_avg_sq"])
            group.step.copy_(state[f"{name}.step"])

    def begin_step(self, step: int) -> None:
        """Set the learning rates of a step."""
        for group in self.groups:
            group.learning_rate = self.settings.learning_rate * group.scale * schedule(step, self.settings)

    def clear(self) -> None:
        """Forget the gradients of the step before."""
        for group in self.groups:
            group.gradient.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Bound the gradient's length and make one step."""
        length = torch.stack([torch.linalg.vector_norm(g.gradient) for g in self.groups]).norm()
        share = (MAX_GRADIENT_NORM / (length + 1e-6)).clamp(max=1.0)
        for group in self.groups:
            group.gradient.mul_(share)
            group.descend(self.settings.weight_decay)

    def preview(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """Tell what a gradient of a parameter would add to its next step."""
        group, _, exp_avg_sq = self._slots[id(parameter)]
        step = float(group.step) + 1
        second = BETAS[1] * exp_avg_sq + (1 - BETAS[1]) * gradient.square()
        scale = (second / (1 - BETAS[1] ** step)).sqrt() + EPS
        share: float = (1 - BETAS[0]) / (1 - BETAS[0] ** step)
        return gradient.mul(-group.learning_rate * share).div(scale)


def schedule(step: int, settings: FitSettings) -> float:
    """Warm up linearly, then decay linearly to a tenth; a continuation stays at its one small rate."""
    if settings.constant:
        return 1.0
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.total_steps - settings.warmup_steps)
    return 1.0 - 0.9 * min(done, 1.0)


def _room(parameter: nn.Parameter) -> int:
    return -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
