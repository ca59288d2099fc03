"""PLE: experts of each task beside shared experts, in several levels.

Shape letters: B examples, I inputs, E a level's experts (shared first, then task by task), H its width.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.model.layers import Linears, TaskModules
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

    def first_layer(self) -> Linears:
        """Give the first level's experts, then its gates."""
        return self._level(0).first_layer()

    def above(self, first_BO: Tensor) -> dict[str, Tensor]:
        """Mix the first level's experts, and go on level by level."""
        streams = self._level(0).above(first_BO)
        for place in range(1, len(self.levels)):
            streams = self.levels[place](streams)
        return streams

    def _level(self, place: int) -> "_Level":
        level = self.levels[place]
        assert isinstance(level, _Level)
        return level

    def gate_weights(self, x_BI: Tensor) -> dict[str, Tensor]:
        """Return each task's gate of the last level over all its experts, [B, E]; 0 on other tasks' own."""
        return self._level(-1).gate_weights(self._before_last(x_BI))

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
        return _mixed(self.every_gate(streams), experts_BEH)

    def first_layer(self) -> Linears:
        """Give the shared experts, those of each task, and the gates."""
        experts = [e for e in (self.shared, *self.own.values()) if isinstance(e, Experts)]
        return Linears.cat([*(e.first_layer() for e in experts), Linears.of(self._gates.values())])

    def above(self, first_BO: Tensor) -> dict[str, Tensor]:
        """Mix the experts, which have one layer, by the gates."""
        num_all = self.num_shared + self.num_own * len(self.tasks)
        width = self.shared.biases[0].shape[1]
        experts_BEH = first_BO[:, : num_all * width].relu_().view(first_BO.shape[0], num_all, width)
        gates = self._gates
        logits = first_BO[:, num_all * width :].split_with_sizes([g.out_features for g in gates.values()], 1)
        return _mixed(self._weights(dict(zip(gates, logits, strict=True))), experts_BEH)

    def every_gate(self, streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the weights of the tasks' gates and, between levels, of the shared one."""
        return self._weights({name: gate(streams[name]) for name, gate in self._gates.items()})

    def gate_weights(self, streams: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the weights of the tasks' gates."""
        return self._weights({task: self.gates[task](streams[task]) for task in self.tasks})

    @property
    def _gates(self) -> dict[str, nn.Linear]:
        """List the gates: task by task, then the shared one where there is one."""
        gates = {**self.gates, **({} if self.shared_gate is None else {SHARED: self.shared_gate})}
        return {name: gate for name, gate in gates.items() if isinstance(gate, nn.Linear)}

    def _weights(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turn each gate's logits into weights of all experts [B, E], 0 out of its reach."""
        weights = {name: values.softmax(dim=1) for name, values in logits.items()}
        return {n: w if n == SHARED else self._spread(w, self.tasks.index(n)) for n, w in weights.items()}

    def _spread(self, weights: Tensor, place: int) -> Tensor:
        """Spread a task's weights of what it reaches to all experts, so that one product mixes all gates."""
        others = weights.new_zeros(weights.shape[0], self.num_own * (len(self.tasks) - 1))
        before, after = others.split_with_sizes(
            [self.num_own * place, self.num_own * (len(self.tasks) - 1 - place)], 1
        )
        shared, own = weights.split_with_sizes([self.num_shared, self.num_own], 1)
        return torch.cat([shared, before, own, after], dim=1)


def _mixed(gates: Mapping[str, Tensor], experts_BEH: Tensor) -> dict[str, Tensor]:
    """Give one h [B, H] per gate."""
    gates_BGE = torch.stack(list(gates.values()), dim=1)
    return dict(zip(gates, mix(gates_BGE, experts_BEH), strict=True))
