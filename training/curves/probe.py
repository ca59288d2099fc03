"""A look at one step's gradients and gates, on its own batch, before it is made.

Gradients: of each loss on its own, in float32, of the dense parameters that several losses reach (towers,
history, trunk), over all ranks. Gates: entropy of each over the experts that it reaches, averaged over rows.

Shape letters: B examples, E experts.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor, nn

from recsys.model.trunks.trunk import Trunk
from training.balancing.gradients import task_gradients
from training.trainer.group import ALONE, Group
from training.trainer.moment import Moment


@dataclass(slots=True)
class Gates:
    """Sums over the rows that passed through a trunk."""

    weight: dict[str, Tensor] = field(default_factory=dict)
    entropy: dict[str, Tensor] = field(default_factory=dict)

    def add(self, gates: dict[str, Tensor]) -> None:
        """Take in the weights [B, E] of every gate, by name."""
        for name, weight_BE in gates.items():
            entropy = -torch.special.xlogy(weight_BE, weight_BE).double().sum()
            self.weight[name] = self.weight.get(name, 0.0) + weight_BE.double().sum(dim=0)
            self.entropy[name] = self.entropy.get(name, 0.0) + entropy

    def values(self, group: Group = ALONE) -> dict[str, float]:
        """Give each gate's mean entropy as a share of the most that it can be: 0 one expert, 1 all alike."""
        found = {}
        for name, weight in self.weight.items():
            *whole, total = group.total(torch.cat([weight, self.entropy[name][None]])).tolist()
            reach, rows = sum(share > 0 for share in whole), sum(whole)  # a row's weights sum to 1
            entropy = total / rows
            if reach > 1:
                found[f"gate_entropy/{name}"] = entropy / math.log(reach)
        return found


def look(moment: Moment, group: Group = ALONE) -> dict[str, float]:
    """Give the norms and cosines of the losses' gradients and the gates' entropies, by curve.

    All ranks look at the same steps. Random states, gradients and weights are left as they were.
    """
    device = moment.tables.device
    rows = {name: found.detach() for name, found in moment.rows.items()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        with _gates_of(moment) as gates:
            losses = moment.losses(rows)
        gradients = task_gradients(losses, moment.parameters, (), group)
    names, gramian = list(gradients.by_task), gradients.gramian()
    length = dict(zip(names, gramian.diagonal().sqrt().tolist(), strict=True))
    found = {f"gradient_norm/{name}": norm for name, norm in length.items() if norm > 0}
    for (i, a), (j, b) in combinations(enumerate(names), 2):
        if length[a] > 0 and length[b] > 0:
            found[f"gradient_cosine/{a}-{b}"] = float(gramian[i, j]) / (length[a] * length[b])
    return found | gates.values(group)


@contextmanager
def _gates_of(moment: Moment) -> Iterator[Gates]:
    """Watch the gates of the learner's trunk (of an ensemble, of the first one), where it has any."""
    gates, trunk = Gates(), getattr(moment.learner, "trunk", None)
    if not isinstance(trunk, Trunk):
        yield gates
        return

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], _hidden: dict[str, Tensor]) -> None:
        with torch.no_grad():
            gates.add(trunk.every_gate(inputs[0]))

    handle = trunk.register_forward_hook(hook)
    try:
        yield gates
    finally:
        handle.remove()
