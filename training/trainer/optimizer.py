"""The dense parameters' optimiser: AdamW, its schedule, and the bound on the gradient's length."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from training.trainer.learner import Learner
from training.trainer.settings import FitSettings

MAX_GRADIENT_NORM = 10.0


class DenseOptimizer:
    """AdamW over a learner's dense parameters."""

    def __init__(self, learner: Learner, settings: FitSettings) -> None:
        """Make the optimiser; each group has its own multiple of the learning rate."""
        self.settings = settings
        self.named: dict[str, nn.Parameter] = dict(learner.named_parameters())
        self.parameters = list(self.named.values())
        groups = [{"params": group, "scale": scale} for scale, group in learner.parameter_groups().items()]
        self.adamw = AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)

    def state(self) -> dict[str, Tensor]:
        """Give AdamW's state by parameter: `<name>.exp_avg`, `<name>.exp_avg_sq`, `<name>.step`."""
        found = ((name, self.adamw.state.get(p, {})) for name, p in self.named.items())
        return {f"{name}.{key}": value for name, kept in found for key, value in kept.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave; a parameter without any has not made a step."""
        for name, parameter in self.named.items():
            if f"{name}.step" in state:
                self.adamw.state[parameter] = {
                    key: state[f"{name}.{key}"].to(parameter.device, copy=True)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }

    def begin_step(self, step: int) -> None:
        """Set the learning rates of a step."""
        for group in self.adamw.param_groups:
            group["lr"] = self.settings.learning_rate * group["scale"] * schedule(step, self.settings)

    def clear(self) -> None:
        """Forget the gradients of the step before."""
        self.adamw.zero_grad()

    def step(self) -> None:
        """Bound the gradient's length and make one step."""
        clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM)
        self.adamw.step()


def schedule(step: int, settings: FitSettings) -> float:
    """Warm up linearly, then decay linearly to a tenth; a continuation stays at its one small rate."""
    if settings.constant:
        return 1.0
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.total_steps - settings.warmup_steps)
    return 1.0 - 0.9 * min(done, 1.0)
