"""PLE: experts of each task beside shared experts, in several levels.

Shape letters: B examples, I inputs, E a level's experts (shared first, then task by task), H its width.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.model.layers import TaskModules
from recsys.model.layout import SHARED_GATE, Axes, Layout
from recsys.model.trunks.experts import Experts, mix
from recsys.model.trunks.trunk import Trunk
from recsys.shapes import TrunkShape

SHARED = "*"
"""Name of the shared stream, which all tasks feed and read; no task can have this name."""
SHARED_NAME = "shared-gate"
"""What the shared stream's gate is called for people."""


class PLE(Trunk):
    """Progressive layered extraction: one extraction level per entry of `hidden`.

    A task's gate sees its own experts and the shared ones; between levels a shared gate sees all of them. So
    what tasks share and what they do not are kept apart a little more at each level.

    Source: Tang et al., RecSys 2020.
    """

    def __init__(self, num_in: int, tasks: Sequence[str], shape: TrunkShape, dropout: float) -> None:
        """Build a level of one-layer experts per width: `num_experts` shared, `task_experts` per task."""
        super().__init__(num_in, tasks, shape, dropout)
        widths = [num_in, *shape.hidden]
        self.levels = nn.ModuleList(
            _Level(i, o, tasks, shape, dropout, last=number == len(shape.hidden))
            for number, (i, o) in enumerate(pairwise(widths), start=1)
        )

    @classmethod
    def layouts(cls, x: Layout, tasks: Sequence[str], shape: TrunkShape) -> dict[str, Axes]:
        """List the dimensions of the parameters that depend on the inputs x or on the tasks, by name."""
        experts = ((SHARED, shape.num_experts), *((task, shape.task_experts) for task in tasks))
        gates = [f"levels.{level}.{SHARED_GATE}" for level in range(len(shape.hidden) - 1)]
        found = {f"{gate}.{part}": {0: experts} for gate in gates for part in ("weight", "bias")}
        if gates:
            found[f"levels.0.{SHARED_GATE}.weight"][1] = x
        found["levels.0.shared.weights.0"] = {1: x}
        for task in tasks:
            found |= {f"levels.0.gates.{task}.weight": {1: x}, f"levels.0.own.{task}.weights.0": {1: x}}
        return found

    def forward(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Extract level by level: h [B, H] per task."""
        streams = self._before_last(x_BI)
        found: dict[str, Tensor] = self.levels[-1](streams)
        return found

    def gate_weights(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Return each task's gate of the last level over all its experts, [B, E]; 0 on other tasks' own."""
        last = self.levels[-1]
        assert isinstance(last, _Level)
        return last.gate_weights(self._before_last(x_BI))

    def every_gate(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Return every level's gates, [B, E]: `1/click`, …, and `1/shared-gate` between levels."""
        streams, found = dict.fromkeys((SHARED, *self.tasks), x_BI), {}
        for number, level in enumerate(self.levels, start=1):
            assert isinstance(level, _Level)
            for name, weights_BE in level.every_gate(streams).items():
                found[f"{number}/{SHARED_NAME if name == SHARED else name}"] = weights_BE
            if level.shared_gate is not None:
                streams = level(streams)
        return found

    def _before_last(self, x_BI: Tensor) -> dict[str, Tensor]:
        streams = dict.fromkeys((SHARED, *self.tasks), x_BI)
        for level in self.levels[:-1]:
            streams = level(streams)
        return streams


class _Level(nn.Module):
    """One extraction level: a stream per task and a shared one, in and (but for the last level) out."""

    def __init__(
        self,
        num_in: int,
        width: int,
        tasks: Sequence[str],
        shape: TrunkShape,
        dropout: float,
        *,
        last: bool,
    ) -> None:
        super().__init__()
        self.num_shared, self.num_own = shape.num_experts, shape.task_experts
        self.tasks = tuple(tasks)
        reach = self.num_shared + self.num_own
        self.gates = TaskModules({t: nn.Linear(num_in, reach) for t in tasks})
        num_all = self.num_shared + self.num_own * len(tasks)
        self.shared_gate = None if last else nn.Linear(num_in, num_all)
        self.shared = Experts(self.num_shared, num_in, [width], dropout)
        self.own = TaskModules({t: Experts(self.num_own, num_in, [width], dropout) for t in tasks})

    def forward(self, streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = [self.own[task](streams[task]) for task in self.tasks]
        experts_BEH = torch.cat([self.shared(streams[SHARED]), *own], dim=1)
        gates = self.every_gate(streams)
        gates_BGE = torch.stack(list(gates.values()), dim=1)
        return dict(zip(gates, mix(gates_BGE, experts_BEH), strict=True))

    def every_gate(self, streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the tasks' gates and, between levels, the shared one."""
        gates = self.gate_weights(streams)
        if self.shared_gate is not None:
            gates[SHARED] = self.shared_gate(streams[SHARED]).softmax(dim=1)
        return gates

    def gate_weights(self, streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Spread each task's softmax over its reach to all experts [B, E], so that one product mixes all."""
        found = {}
        for place, task in enumerate(self.tasks):
            weights = self.gates[task](streams[task]).softmax(dim=1)
            others = weights.new_zeros(weights.shape[0], self.num_own * (len(self.tasks) - 1))
            before, after = others.split(
                [self.num_own * place, self.num_own * (len(self.tasks) - 1 - place)], dim=1
            )
            shared, own = weights.split([self.num_shared, self.num_own], dim=1)
            found[task] = torch.cat([shared, before, own, after], dim=1)
        return found
